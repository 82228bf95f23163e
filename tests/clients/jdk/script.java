// The JDK's own HTTP client, as it comes: it offers HTTP/2 (`Upgrade: h2c`). It speaks as probe.py does: what to ask on
// stdin, one JSON object of results on stdout. The JDK reads no JSON, so values are cut out of it by patterns, and stay
// written as they were.

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

class Script {
    static final String TEXT = "\"([^\"\\\\]*(?:\\\\.[^\"\\\\]*)*)\"";
    static final String NUMBER = "(\\d+)";

    final HttpClient client = HttpClient.newHttpClient(); // its preference is HTTP/2
    final String given;

    Script(String given) {
        this.given = given;
    }

    public static void main(String[] arguments) throws IOException {
        String said = new Script(new String(System.in.readAllBytes(), StandardCharsets.UTF_8)).results();
        System.out.print(said.chars().mapToObj(Script::ascii).collect(Collectors.joining()));
    }

    static String ascii(int letter) {
        return letter < 128 ? Character.toString(letter) : "\\u%04x".formatted(letter);
    }

    String results() {
        Map<String, Callable<String>> probes = new LinkedHashMap<>();
        probes.put("models", this::models);
        probes.put("whole", () -> answer("content", whole(chat(""))));
        probes.put("whole_async", () -> answer("content", async(chat(""))));
        probes.put("whole_chunked", () -> answer("content", whole(post("chat/completions", chunked(chatBody(""))))));
        probes.put("streamed", () -> answer("content", streamed(chat(STREAM))));
        probes.put("completion", () -> answer("text", whole(completion(""))));
        probes.put("completion_streamed", () -> answer("text", streamed(completion(STREAM))));
        return probes.entrySet().stream().map(one -> "\"%s\": %s".formatted(one.getKey(), told(one.getValue())))
            .collect(Collectors.joining(", ", "{", "}"));
    }

    static String told(Callable<String> probe) {
        try {
            return "{\"value\": %s}".formatted(probe.call());
        } catch (Exception error) {
            String message = String.valueOf(error.getMessage()).replaceAll("[\"\\\\\\s]", " ");
            String kind = error.getClass().getName();
            return "{\"raised\": {\"kinds\": [\"%s\"], \"message\": \"%s\"}}".formatted(kind, message);
        }
    }

    // --- what is asked

    static final String STREAM = ", \"stream\": true, \"stream_options\": {\"include_usage\": true}";

    String chatBody(String more) {
        return body("messages", "(\\[\\{.*?\\}\\])", more);
    }

    HttpRequest chat(String more) {
        return post("chat/completions", BodyPublishers.ofString(chatBody(more)));
    }

    HttpRequest completion(String more) {
        return post("completions", BodyPublishers.ofString(body("prompt", "(\"[^\"]*\")", more)));
    }

    String body(String field, String pattern, String more) {
        String model = one("model", TEXT, given), limit = one("max_tokens", NUMBER, given);
        return "{\"model\": \"%s\", \"max_tokens\": %s, \"temperature\": 0, \"%s\": %s%s}"
            .formatted(model, limit, field, one(field, pattern, given), more);
    }

    static BodyPublisher chunked(String body) { // its length is not known, so it is sent in chunks
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes(StandardCharsets.UTF_8)));
    }

    HttpRequest post(String path, BodyPublisher body) {
        return to(path).header("Content-Type", "application/json").POST(body).build();
    }

    HttpRequest.Builder to(String path) {
        URI uri = URI.create("%s/v1/%s".formatted(one("url", TEXT, given), path));
        return HttpRequest.newBuilder(uri).header("x-pointsman-engine", one("engine", TEXT, given));
    }

    // --- what is answered

    String models() throws Exception {
        return all("id", TEXT, whole(to("models").build())).stream().map("\"%s\""::formatted).toList().toString();
    }

    String whole(HttpRequest request) throws Exception {
        return good(client.send(request, BodyHandlers.ofString()));
    }

    String async(HttpRequest request) throws Exception {
        return good(client.sendAsync(request, BodyHandlers.ofString()).get());
    }

    String streamed(HttpRequest request) throws Exception {
        HttpResponse<Stream<String>> response = client.send(request, BodyHandlers.ofLines());
        List<String> lines = response.body().filter(line -> !line.isEmpty()).toList();
        if (!lines.get(lines.size() - 1).equals("data: [DONE]")) {
            throw new IOException("not finished: " + lines);
        }
        return String.join("\n", lines);
    }

    static String good(HttpResponse<String> response) throws IOException {
        if (response.statusCode() != 200) {
            throw new IOException(response.statusCode() + " " + response.body());
        }
        return response.body();
    }

    static String answer(String field, String said) {
        return "{\"text\": \"%s\", \"reason\": \"%s\", \"prompt_tokens\": %s, \"completion_tokens\": %s}".formatted(
            String.join("", all(field, TEXT, said)), one("finish_reason", TEXT, said),
            one("prompt_tokens", NUMBER, said), one("completion_tokens", NUMBER, said));
    }

    static String one(String field, String pattern, String json) {
        return all(field, pattern, json).get(0);
    }

    static List<String> all(String field, String pattern, String json) {
        Pattern wanted = Pattern.compile("\"%s\": ?%s".formatted(field, pattern));
        return wanted.matcher(json).results().map(match -> match.group(1)).toList();
    }
}
