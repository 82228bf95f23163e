"""What Redis is asked, as Lua: one script for each question, so that it is one round trip, and all of it or nothing.

KEYS are what is counted of a tenant, of all its keys together. The windows are counted by the library `limits`' own
scripts, which are made functions here. A permit to be in flight is a member of the tenant's sorted set, its score the
time when it ends, by Redis's own clock.
"""

from limits.aio.storage.redis.bridge import RedisBridge

from gateway.access.limits.quota import WINDOW

FUNCTIONS = f"""
local function look(KEYS, ARGV)
{RedisBridge.SCRIPT_SLIDING_WINDOW.decode()}
end

local function take(KEYS, ARGV)
{RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode()}
end

local requests, tokens, permits = {{KEYS[1], KEYS[2]}}, {{KEYS[3], KEYS[4]}}, KEYS[5]
local unbounded = 2^53

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function used(window)
    local previous, ttl = tonumber(window[1]) or 0, math.max(0, window[2])
    return math.floor(previous * ttl / {WINDOW * 1000}) + (tonumber(window[3]) or 0)
end
"""

# ARGV: the key's limits of requests, tokens and requests in flight, 0 for none; the permit and its ms.
# Returns the limit that is reached, "" if none is, then both windows: previous count, its ms, current count, its ms.
ENTER = f"""{FUNCTIONS}
local rpm, tpm, max_in_flight = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function reached()
    if max_in_flight > 0 then
        redis.call('ZREMRANGEBYSCORE', permits, '-inf', now())
        if redis.call('ZCARD', permits) >= max_in_flight then return 'in flight' end
    end
    if tpm > 0 and used(look(tokens, {{{WINDOW}}})) >= tpm then return 'tokens' end
    if not take(requests, {{rpm > 0 and rpm or unbounded, {WINDOW}, 1}}) then return 'requests' end
    return ''
end

local limit = reached()
if limit == '' then
    redis.call('ZADD', permits, now() + ARGV[5], ARGV[4])
    redis.call('PEXPIRE', permits, ARGV[5])
end
local r, t = look(requests, {{{WINDOW}}}), look(tokens, {{{WINDOW}}})
return {{limit, r[1], r[2], r[3], r[4], t[1], t[2], t[3], t[4]}}
"""

# Returns both windows, as ENTER does, and takes nothing.
LOOK = f"""{FUNCTIONS}
local r, t = look(requests, {{{WINDOW}}}), look(tokens, {{{WINDOW}}})
return {{r[1], r[2], r[3], r[4], t[1], t[2], t[3], t[4]}}
"""

# ARGV: the tokens to debit, and the permit to give back, if there is one.
LEAVE = f"""{FUNCTIONS}
if tonumber(ARGV[1]) > 0 then take(tokens, {{unbounded, {WINDOW}, ARGV[1]}}) end
redis.call('ZREM', permits, ARGV[2])
"""

# ARGV: the permits' ms, then the permits: they last so long from now, and are there again if Redis had lost them.
RENEW = f"""{FUNCTIONS}
for permit = 2, #ARGV do redis.call('ZADD', permits, now() + ARGV[1], ARGV[permit]) end
redis.call('PEXPIRE', permits, ARGV[1])
"""
