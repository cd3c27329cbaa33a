// SPDX-License-Identifier: Apache-2.0

#include "tools/run_network.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/fd.h"
#include "net/sock_addr.h"

namespace shunt {
namespace {

constexpr char kAddress[] = "10.0.2.100";
constexpr char kGateway[] = "10.0.2.2";
constexpr char kResolver[] = "10.0.2.3";
constexpr char kAddress6[] = "fd00:2::100";
constexpr char kGateway6[] = "fd00:2::2";
constexpr int kStartTimeoutMs = 10'000;  // tens of milliseconds are usual

// The host's search domains and options with the network program's resolver.
std::string ResolvConf() {
  std::string text = absl::StrCat("nameserver ", kResolver, "\n");
  std::ifstream host("/etc/resolv.conf");
  for (std::string line; std::getline(host, line);) {
    if (absl::StartsWith(line, "search") || absl::StartsWith(line, "domain") ||
        absl::StartsWith(line, "options")) {
      absl::StrAppend(&text, line, "\n");
    }
  }
  return text;
}

net::IpAddress HostIp(const net::Publish& publish) {
  return publish.host_ip.value_or(net::IpAddress::FromV4({INADDR_ANY}));
}

// The program will have to bind the host's port. Its own words about a failure, if any, do not say why.
absl::Status CheckHostPort(const net::Publish& publish) {
  const net::SockAddr address(HostIp(publish), publish.host_port);
  const Fd probe(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  // Connections of the past in TIME_WAIT are in nobody's way, a listener is.
  const int on = 1;
  setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (probe.valid() && bind(probe.get(), address.data(), address.size()) == 0 &&
      listen(probe.get(), 1) == 0) {
    return absl::OkStatus();
  }
  std::string what = absl::StrCat("--publish ", publish.ToString(), ": ");
  if (errno == EADDRINUSE)
    absl::StrAppend(&what, "the host's port ", publish.host_port, " is taken; choose another");
  if (errno == EACCES) {
    absl::StrAppend(&what, "only root may use the host's port ", publish.host_port,
                    "; choose one from 1024 (net.ipv4.ip_unprivileged_port_start)");
  }
  if (errno == EADDRNOTAVAIL) absl::StrAppend(&what, "the host has no such address");
  return absl::ErrnoToStatus(errno, what);
}

// Waits until the program says, by writing to the pipe, that the network is there.
absl::Status AwaitReady(const std::string& name, const LeashedProgram& program, int ready_fd) {
  pollfd fds[] = {{ready_fd, POLLIN, 0}, {program.ended_fd(), POLLIN, 0}};
  while (true) {
    const int count = poll(fds, 2, kStartTimeoutMs);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) return absl::DeadlineExceededError(name + " did not get ready within 10 s");
    char byte;
    if ((fds[0].revents & POLLIN) != 0 && read(ready_fd, &byte, 1) == 1) return absl::OkStatus();
    // Ended, or closed the pipe and is about to.
    const std::string complaint = program.Complaint();
    std::string text = absl::StrCat(name, " did not start", complaint.empty() ? "" : ": ", complaint);
    if (absl::StrContains(complaint, "/dev/net/tun") && access("/dev/net/tun", R_OK | W_OK) != 0) {
      absl::StrAppend(&text, " (as root: chmod 0666 /dev/net/tun)");
    }
    return absl::UnavailableError(text);
  }
}

absl::StatusOr<LeashedProgram> StartAndAwait(const std::string& name, std::vector<std::string> argv) {
  argv[0] = FindProgram(name);
  if (argv[0].empty()) {
    const char* const package = name == "pasta" ? "passt" : name.c_str();
    return absl::NotFoundError(absl::StrCat(name, " is not installed: apt install ", package));
  }
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "make a pipe");
  const Fd ready_end(ready[0]);
  Fd program_end(ready[1]);
  absl::StatusOr<LeashedProgram> program = LeashedProgram::Start(argv, program_end.get());
  if (!program.ok()) return program.status();
  program_end.reset();
  if (absl::Status status = AwaitReady(name, *program, ready_end.get()); !status.ok()) return status;
  return program;
}

// One request to slirp4netns' API socket: a connection, one JSON object, one back.
absl::Status AskSlirp(const std::string& socket_path, const nlohmann::json& request) {
  const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {.sun_family = AF_UNIX};
  if (socket_path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("TMPDIR is too long a path for a socket: ", socket_path));
  }
  socket_path.copy(address.sun_path, socket_path.size());
  const std::string text = request.dump();
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()) ||
      shutdown(fd.get(), SHUT_WR) != 0) {
    return absl::ErrnoToStatus(errno, "talk to slirp4netns");
  }
  std::string reply;
  char buffer[1024];
  ssize_t size;
  while ((size = read(fd.get(), buffer, sizeof buffer)) > 0) reply.append(buffer, static_cast<size_t>(size));
  const nlohmann::json answer = nlohmann::json::parse(reply, nullptr, /*allow_exceptions=*/false);
  if (answer.is_object() && answer.contains("return")) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("slirp4netns refused: ", reply));
}

absl::Status ForwardBySlirp(const std::string& socket_path, std::span<const net::Publish> forward) {
  for (const net::Publish& publish : forward) {
    const nlohmann::json request = {{"execute", "add_hostfwd"},
                                    {"arguments",
                                     {{"proto", "tcp"},
                                      {"host_addr", HostIp(publish).ToString()},
                                      {"host_port", publish.host_port},
                                      {"guest_addr", kAddress},
                                      {"guest_port", publish.port}}}};
    absl::Status status = AskSlirp(socket_path, request);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("--publish ", publish.ToString(), ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LeashedProgram> StartSlirp4netns(pid_t pid, std::span<const net::Publish> forward) {
  std::vector<std::string> argv = {
      "slirp4netns",   "--configure",      "--mtu=65520",      "--disable-host-loopback",
      "--enable-ipv6", "--enable-sandbox", "--enable-seccomp", "--ready-fd=3"};
  std::string directory;
  // Nobody needs the socket once the ports are forwarded.
  const absl::Cleanup remove_directory = [&directory] {
    if (directory.empty()) return;
    unlink((directory + "/api").c_str());
    rmdir(directory.c_str());
  };
  if (!forward.empty()) {
    const char* const place = std::getenv("TMPDIR");
    std::string pattern = absl::StrCat(place == nullptr ? "/tmp" : place, "/shunt-run.XXXXXX");
    if (mkdtemp(pattern.data()) == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("make ", pattern));
    directory = pattern;
    argv.push_back(absl::StrCat("--api-socket=", directory, "/api"));
  }
  argv.push_back(absl::StrCat(pid));
  argv.push_back("tap0");
  // slirp4netns makes its socket as the container's uid 0. Where that is not ourselves (--user), we need the
  // permission of others to connect; beyond the folder, which is ours alone, nobody gets it.
  const mode_t before = umask(0);
  absl::StatusOr<LeashedProgram> program = StartAndAwait("slirp4netns", argv);
  umask(before);
  if (!program.ok() || forward.empty()) return program;
  if (absl::Status status = ForwardBySlirp(directory + "/api", forward); !status.ok()) return status;
  return program;
}

absl::StatusOr<LeashedProgram> StartPasta(pid_t pid, std::span<const net::Publish> forward) {
  std::vector<std::string> argv = {"pasta", "--foreground", "--quiet", "--config-net", "--ns-ifname", "tap0",
                                   "--no-map-gw", "--address", kAddress, "--netmask", "24", "--gateway",
                                   kGateway, "--address", kAddress6, "--gateway", kGateway6, "--dns-forward",
                                   kResolver,
                                   // No ports but those that were asked for, in neither direction.
                                   "-u", "none", "-T", "none", "-U", "none",
                                   // It writes its pid when the network is there: that is our pipe.
                                   "--pid", "/proc/self/fd/3"};
  // Root would become nobody, who may not enter our namespaces.
  if (geteuid() == 0) argv.insert(argv.end(), {"--runas", "0:0"});
  if (forward.empty()) argv.insert(argv.end(), {"-t", "none"});
  for (const net::Publish& publish : forward) {
    const std::string ip = publish.host_ip.has_value() ? publish.host_ip->ToString() + "/" : "";
    argv.insert(argv.end(), {"-t", absl::StrCat(ip, publish.host_port, ":", publish.port)});
  }
  argv.push_back(absl::StrCat(pid));
  return StartAndAwait("pasta", argv);
}

}  // namespace

const char* NetworkName(NetworkKind kind) {
  return kind == NetworkKind::kPasta ? "pasta" : "slirp4netns";
}

bool NetworkInstalled(NetworkKind kind) {
  return !FindProgram(NetworkName(kind)).empty();
}

absl::StatusOr<Network> StartNetwork(NetworkKind kind, pid_t pid, std::span<const net::Publish> forward) {
  for (const net::Publish& publish : forward) {
    if (kind == NetworkKind::kSlirp4netns && HostIp(publish).IsV6()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--publish ", publish.ToString(),
                       ": slirp4netns forwards only IPv4 addresses; --net pasta does IPv6, too"));
    }
    if (absl::Status status = CheckHostPort(publish); !status.ok()) return status;
  }
  absl::StatusOr<LeashedProgram> program =
      kind == NetworkKind::kPasta ? StartPasta(pid, forward) : StartSlirp4netns(pid, forward);
  if (!program.ok()) return program.status();
  return Network{*std::move(program), ResolvConf()};
}

}  // namespace shunt
