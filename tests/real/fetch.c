// SPDX-License-Identifier: Apache-2.0
// The smallest HTTP client, in C so that it can be built for every libc and word size.
//
//   fetch HOST PORT PATH COUNT
//
// Asks COUNT times for PATH, in turns with a blocking connect and with a nonblocking one that poll() waits
// for, and writes the bodies to standard output, one after the other. Each answer has to end with its
// connection. Exit status 1 and a line on standard error if anything fails.
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char* what) {
  fprintf(stderr, "fetch: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int dial(const struct addrinfo* to, int nonblocking) {
  const int fd = socket(to->ai_family, SOCK_STREAM | (nonblocking ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0) fail("socket");
  if (connect(fd, to->ai_addr, to->ai_addrlen) == 0) return fd;
  if (!nonblocking || errno != EINPROGRESS) fail("connect");
  struct pollfd wait = {.fd = fd, .events = POLLOUT};
  if (poll(&wait, 1, 10000) != 1) fail("poll");
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) {
    errno = error;
    fail("connect");
  }
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) != 0) fail("fcntl");
  return fd;
}

static void fetch(const struct addrinfo* to, const char* host, const char* path, int nonblocking) {
  const int fd = dial(to, nonblocking);
  FILE* const stream = fdopen(fd, "r+");
  if (stream == NULL) fail("fdopen");
  fprintf(stream, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host);
  if (fflush(stream) != 0) fail("send");
  char line[4096];
  if (fgets(line, sizeof(line), stream) == NULL || strstr(line, " 200 ") == NULL) fail("no 200");
  while (fgets(line, sizeof(line), stream) != NULL && strcmp(line, "\r\n") != 0) {
  }
  size_t count;
  while ((count = fread(line, 1, sizeof(line), stream)) > 0) fwrite(line, 1, count, stdout);
  if (ferror(stream)) fail("receive");
  fclose(stream);
}

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: fetch HOST PORT PATH COUNT\n");
    return 2;
  }
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo* to = NULL;
  const int error = getaddrinfo(argv[1], argv[2], &hints, &to);
  if (error != 0) {
    fprintf(stderr, "fetch: %s: %s\n", argv[1], gai_strerror(error));
    return 1;
  }
  for (int i = 0; i < atoi(argv[4]); ++i) fetch(to, argv[1], argv[3], i % 2);
  freeaddrinfo(to);
  return fflush(stdout) == 0 ? 0 : 1;
}
