// SPDX-License-Identifier: Apache-2.0
// The lock server as its clients see it: ordinary users who need a lock, and others who do not behave.
//
// The server runs in a child with the confinement that it gives itself; clients run as an ordinary user. Runs
// as root in tests/support/arena.

#include "tools/lock_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "net/lock.h"
#include "tests/support/tcp_probe.h"

namespace shunt {
namespace {

using testing_support::Address;
using testing_support::Connect;
using testing_support::Eventually;
using testing_support::Listener;
using testing_support::LocalPort;
using testing_support::Outcome;
using testing_support::TcpSocket;

constexpr uid_t kUser = 7331;

net::LockPolicy NoLoopback() {
  net::LockPolicy policy;
  SHUNT_CHECK(policy.deny.Add(*net::ParseSubnet("127.0.0.0/8")));
  return policy;
}

// Exits 0 if `body` finds everything as it should be. Its complaints go to stderr.
int InChild(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  SHUNT_CHECK(child > 0 && ::waitpid(child, &status, 0) == child);
  return status;
}

bool BecomeUser() {
  return ::setresgid(kUser, kUser, kUser) == 0 && ::setresuid(kUser, kUser, kUser) == 0;
}

class LockServerTest : public testing::Test {
 protected:
  LockServerTest() : path_(absl::StrCat(std::getenv("TMPDIR"), "/lock.sock")) {}

  ~LockServerTest() override {
    if (server_ > 0) {
      ::kill(server_, SIGKILL);
      ::waitpid(server_, nullptr, 0);
    }
    ::unlink(path_.c_str());
  }

  void StartServer(std::optional<std::chrono::milliseconds> idle_limit = std::nullopt) {
    absl::StatusOr<Fd> listener = ListenForLockRequests(path_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    server_ = ::fork();
    ASSERT_GE(server_, 0);
    if (server_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      absl::Status status = ConfineLockServer();
      if (status.ok()) status = ServeLockRequests(listener->get(), idle_limit);
      ::_exit(status.ok() ? 0 : 1);
    }
  }

  // A connection to the server, for requests that RequestLockProgram() would not make.
  Fd RawConnection() {
    sockaddr_un address = {.sun_family = AF_UNIX};
    std::strncpy(address.sun_path, path_.c_str(), sizeof(address.sun_path) - 1);
    Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      return Fd();
    return socket;
  }

  std::string AnswerTo(const std::string& request) {
    const Fd socket = RawConnection();
    if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return "(send failed)";
    char answer[net::kMaxLockAnswer];
    const ssize_t size = ::recv(socket.get(), answer, sizeof(answer), 0);
    return size > 0 ? std::string(answer, static_cast<size_t>(size)) : "(closed)";
  }

  const std::string path_;
  pid_t server_ = 0;
};

TEST_F(LockServerTest, AUserWhoMayNotLoadGetsALockThatHolds) {
  StartServer();
  const Fd secret = Listener("127.0.0.1");
  const net::SockAddr to = Address("127.0.0.1", LocalPort(secret.get()), AF_INET);
  EXPECT_EQ(InChild([&] {
              if (!BecomeUser() || net::LoadLockProgramOurselves(NoLoopback()).ok()) return false;
              absl::StatusOr<Fd> program = net::LoadLockProgram(NoLoopback(), path_);
              if (!program.ok()) {
                std::cerr << program.status() << '\n';
                return false;
              }
              const net::SocketLock lock = net::SocketLock::ByProgram(*std::move(program));
              const Fd twin = TcpSocket();
              return lock.Attach(twin.get()).has_value() && Connect(twin.get(), to) == Outcome::kDropped;
            }),
            0);
}

TEST_F(LockServerTest, WithoutAServerTheUserHearsWhatWouldHelp) {
  EXPECT_EQ(InChild([&] {
              if (!BecomeUser()) return false;
              const absl::Status status = net::LoadLockProgram(NoLoopback(), path_).status();
              return absl::IsUnavailable(status) && absl::StrContains(status.message(), path_) &&
                     absl::StrContains(status.message(), "systemctl enable --now shunt-lock.socket");
            }),
            0);
}

TEST_F(LockServerTest, HoldsNothingButTheRightToLoad) {
  StartServer();
  ASSERT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());  // so it has confined itself
  std::ifstream file(absl::StrCat("/proc/", server_, "/status"));
  std::string line;
  int seen = 0;
  while (std::getline(file, line)) {
    const auto expect = [&](absl::string_view name, absl::string_view value) {
      if (!absl::StartsWith(line, name)) return;
      EXPECT_TRUE(absl::EndsWith(line, value)) << line;
      ++seen;
    };
    expect("CapPrm:", "\t0000008000000000");  // bit 39: CAP_BPF
    expect("CapEff:", "\t0000008000000000");
    expect("CapInh:", "\t0000000000000000");
    expect("CapAmb:", "\t0000000000000000");
    expect("NoNewPrivs:", "\t1");
    expect("Seccomp:", "\t2");
  }
  EXPECT_EQ(seen, 6);
}

TEST_F(LockServerTest, TheConfinedServerCannotOpenOrStartAnything) {
  EXPECT_EQ(InChild([] {
              if (!ConfineLockServer().ok()) return false;
              const bool opened = ::open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0;
              const bool made = ::socket(AF_INET, SOCK_STREAM, 0) >= 0;
              const bool forked = ::fork() >= 0;
              return !opened && !made && !forked && net::LoadLockProgramOurselves(NoLoopback()).ok();
            }),
            0);
}

TEST_F(LockServerTest, RefusesToRunWithoutTheCapability) {
  EXPECT_EQ(InChild([] {
              if (!BecomeUser()) return false;
              return absl::StrContains(ConfineLockServer().message(), "needs CAP_BPF; run it as root");
            }),
            0);
}

TEST_F(LockServerTest, TellsWhatIsWrongWithARequest) {
  StartServer();
  EXPECT_EQ(AnswerTo("hello"),
            "lock request: does not begin with \"shl1\"; is it from another version of shunt?");
  const std::string good = net::EncodeLockPolicy(NoLoopback());
  EXPECT_EQ(AnswerTo(good.substr(0, good.size() - 1)),
            "lock request: shorter than its counts say; is it from another version of shunt?");
  EXPECT_EQ(AnswerTo(good + std::string(5000, 'x')),
            "lock request: longer than its counts say; is it from another version of shunt?");
  EXPECT_EQ(AnswerTo(good), net::kLockGranted);
}

TEST_F(LockServerTest, DescriptorsSentAlongAreDropped) {
  StartServer();
  const Fd socket = RawConnection();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  const std::string request = net::EncodeLockPolicy(NoLoopback());
  iovec piece = {.iov_base = const_cast<char*>(request.data()), .iov_len = request.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
  ASSERT_EQ(::sendmsg(socket.get(), &message, 0), static_cast<ssize_t>(request.size()));
  writer.reset();
  // End of file: nobody has the other end any more.
  char byte;
  EXPECT_TRUE(Eventually([&] { return ::read(reader.get(), &byte, 1) == 0; }));
}

TEST_F(LockServerTest, SilentClientsKeepNobodyWaiting) {
  StartServer();
  std::vector<Fd> silent;
  for (int i = 0; i < 500; ++i) silent.push_back(RawConnection());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - start,
            std::chrono::seconds(1));  // less than its patience with one
  // All of them are closed in the end: pushed out at once, or after two seconds.
  for (const Fd& socket : silent) {
    const timeval patience = {.tv_sec = 10};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char byte;
    EXPECT_EQ(::recv(socket.get(), &byte, 1, 0), 0);
  }
}

TEST_F(LockServerTest, ClientsThatLeaveAtOnceDoNotDisturb) {
  StartServer();
  const std::string request = net::EncodeLockPolicy(NoLoopback());
  for (int i = 0; i < 500; ++i) {
    const Fd socket = RawConnection();
    if (i % 2 == 0) ::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL);
  }
  EXPECT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());
}

TEST_F(LockServerTest, LeaksNoDescriptors) {
  StartServer();
  ASSERT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());
  // Looked at when the server has nothing open but its listener.
  const auto highest_fd_count = [&] {
    struct stat info;
    ::stat(absl::StrCat("/proc/", server_, "/fd").c_str(), &info);
    return info.st_size;  // the number of open descriptors, since Linux 6.2
  };
  if (highest_fd_count() == 0)
    GTEST_SKIP() << "this kernel does not tell the number of descriptors by stat(2)";
  const auto before = highest_fd_count();
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());
    AnswerTo("nonsense");
  }
  EXPECT_TRUE(Eventually([&] { return highest_fd_count() <= before; }));
}

TEST_F(LockServerTest, ServesOnTheSocketThatSystemdPasses) {
  absl::StatusOr<Fd> listener = ListenForLockRequests(path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  server_ = ::fork();
  ASSERT_GE(server_, 0);
  if (server_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(listener->get(), 3);
    ::fcntl(3, F_SETFL, 0);  // blocking, as systemd's are
    ::setenv("LISTEN_FDS", "1", 1);
    ::setenv("LISTEN_PID", absl::StrCat(::getpid()).c_str(), 1);
    ::_exit(RunLockServer("/nonexistent/lock.sock").ok() ? 0 : 1);
  }
  EXPECT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());
}

TEST_F(LockServerTest, ASocketOfAnotherTypeFromSystemdIsRefused) {
  EXPECT_EQ(InChild([] {
              const Fd stream(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
              ::dup2(stream.get(), 3);
              ::setenv("LISTEN_FDS", "1", 1);
              ::setenv("LISTEN_PID", absl::StrCat(::getpid()).c_str(), 1);
              return absl::StrContains(RunLockServer("/nonexistent/lock.sock").message(),
                                       "ListenSequentialPacket=");
            }),
            0);
}

TEST_F(LockServerTest, EndsWhenNobodyAsksForAWhile) {
  StartServer(std::chrono::milliseconds(50));
  int status = -1;
  ASSERT_TRUE(Eventually([&] { return ::waitpid(server_, &status, WNOHANG) == server_; }));
  server_ = 0;
  EXPECT_EQ(status, 0);
}

TEST_F(LockServerTest, ReplacesAStaleSocketButNotALivingOneOrAFile) {
  { ASSERT_TRUE(ListenForLockRequests(path_).ok()); }  // closed again: stale
  StartServer();
  EXPECT_TRUE(absl::IsAlreadyExists(ListenForLockRequests(path_).status()));
  ASSERT_TRUE(net::RequestLockProgram(NoLoopback(), path_).ok());
  const std::string file = absl::StrCat(path_, ".file");
  std::ofstream(file) << "precious";
  EXPECT_TRUE(absl::IsAlreadyExists(ListenForLockRequests(file).status()));
  std::string content;
  std::ifstream(file) >> content;
  EXPECT_EQ(content, "precious");
}

TEST_F(LockServerTest, AMissingDirectoryIsNamed) {
  const absl::Status status = ListenForLockRequests("/nonexistent/lock.sock").status();
  EXPECT_TRUE(absl::StrContains(status.message(),
                                "cannot listen on /nonexistent/lock.sock; make its directory first"))
      << status;
}

}  // namespace
}  // namespace shunt

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("ARENA_HOST") == nullptr) {
    std::puts(
        "skipped: run as tests/support/arena -- lock_server_test, since it needs root and an ordinary user");
    return 77;
  }
  if (absl::IsPermissionDenied(shunt::net::LoadLockProgramOurselves({}).status())) {
    std::puts("skipped: root may not load eBPF here");
    return 77;
  }
  return RUN_ALL_TESTS();
}
