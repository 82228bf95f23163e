"""What tests share: the gateway over real sockets, processes, engines that say what a test wrote, recordings."""
