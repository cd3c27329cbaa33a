// SPDX-License-Identifier: Apache-2.0

import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import com.sun.net.httpserver.HttpServer;

/** An HTTP client and server with Java's sockets, all of which are IPv6 ones with mapped addresses. */
public final class Web {
  /** Blocking, on a plain socket, then asynchronously (an NIO selector) with java.net.http. */
  private static void get(String url, int count) throws Exception {
    URI uri = URI.create(url);
    for (int i = 0; i < count; ++i) {
      try (Socket socket = new Socket()) {
        socket.connect(new InetSocketAddress(uri.getHost(), uri.getPort()), 10000);
        String request = "GET " + uri.getPath() + " HTTP/1.0\r\nHost: " + uri.getHost() + "\r\n\r\n";
        socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
        InputStream in = socket.getInputStream();
        byte[] answer = in.readAllBytes();
        int body = 0;
        while (answer[body] != '\r' || answer[body + 1] != '\n' || answer[body + 2] != '\r') ++body;
        body += 4;
        byte[] bytes = java.util.Arrays.copyOfRange(answer, body, answer.length);
        System.out.println(new String(answer, 9, 3, StandardCharsets.US_ASCII) + " " + sum(bytes));
      }
    }
    List<CompletableFuture<HttpResponse<byte[]>>> answers = new ArrayList<>();
    for (int i = 0; i < count; ++i) {
      HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
      answers.add(client.sendAsync(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofByteArray()));
    }
    for (CompletableFuture<HttpResponse<byte[]>> answer : answers) {
      System.out.println(answer.get().statusCode() + " " + sum(answer.get().body()));
    }
    System.out.flush();
    System.exit(0);  // the clients' threads would keep the program for a while
  }

  private static String sum(byte[] bytes) throws Exception {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
  }

  private static void serve(int port) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
    server.createContext("/", exchange -> {
      byte[] text = (exchange.getRemoteAddress().getAddress().getHostAddress() + "\n").getBytes();
      exchange.sendResponseHeaders(200, text.length);
      exchange.getResponseBody().write(text);
      exchange.close();
    });
    server.start();
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments[0].equals("get")) get(arguments[1], Integer.parseInt(arguments[2]));
    if (arguments[0].equals("serve")) serve(Integer.parseInt(arguments[1]));
  }
}
