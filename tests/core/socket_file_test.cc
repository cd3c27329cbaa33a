// SPDX-License-Identifier: Apache-2.0
// What SocketFile promises to the file system.

#include "core/socket_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "core/peer.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

class SocketFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = absl::StrCat(::testing::TempDir(), "/socket.XXXXXX");
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = folder_ + "/agent.sock";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  SocketFile Listen() const {
    absl::StatusOr<SocketFile> socket = SocketFile::Listen(path_);
    EXPECT_TRUE(socket.ok()) << socket.status();
    return socket.ok() ? *std::move(socket) : SocketFile();
  }
  // Why nobody can listen there.
  static std::string Complaint(const std::string& path) {
    return std::string(SocketFile::Listen(path).status().message());
  }
  sockaddr_un Address() const {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    return address;
  }
  void ExpectAnswer() const {
    const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = Address();
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0)
        << std::strerror(errno);
  }
  mode_t Mode() const {
    struct stat info {};
    EXPECT_EQ(stat(path_.c_str(), &info), 0);
    return info.st_mode & 0777;
  }

  std::string folder_, path_;
};

TEST_F(SocketFileTest, ReplacesASocketOnWhichNobodyAnswers) {
  {
    const Fd dead(socket(AF_UNIX, SOCK_STREAM, 0));
    const sockaddr_un address = Address();
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  const SocketFile socket = Listen();
  ExpectAnswer();
}

TEST_F(SocketFileTest, LeavesASocketAloneOnWhichSomebodyAnswers) {
  const SocketFile socket = Listen();
  EXPECT_THAT(Complaint(path_), HasSubstr("another process answers on " + path_));
  ExpectAnswer();
}

TEST_F(SocketFileTest, LeavesAFileAloneThatIsNoSocket) {
  std::ofstream(path_) << "mine";
  EXPECT_THAT(Complaint(path_), HasSubstr(path_ + " exists and is no socket"));
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(SocketFileTest, NamesTheFolderThatIsMissing) {
  EXPECT_THAT(Complaint(folder_ + "/none/agent.sock"), HasSubstr(folder_ + "/none"));
}

TEST_F(SocketFileTest, NamesThePathThatIsTooLong) {
  EXPECT_THAT(Complaint(folder_ + "/" + std::string(108, 'x')), HasSubstr("choose one of 1 to 107"));
}

TEST_F(SocketFileTest, RemovesItsSocketButNotThatOfAnotherAtTheSamePath) {
  Listen().Remove();
  EXPECT_FALSE(std::filesystem::exists(path_));

  const SocketFile socket = Listen();
  std::filesystem::remove(path_);
  std::ofstream(path_) << "mine";
  socket.Remove();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(SocketFileTest, IsForItsUserUnlessOthersAreAllowed) {
  const mode_t old_mask = umask(0);
  SocketFile socket = Listen();
  umask(old_mask);
  EXPECT_EQ(Mode(), 0600u);
  const uid_t other = getuid() + 1;
  ASSERT_TRUE(socket.Admit({{other}}).ok());
  if (socket.open_to_all()) {
    EXPECT_EQ(Mode(), 0666u);
  } else {
    EXPECT_EQ(Mode(), 0660u) << "the group's bits are the list's mask";
    EXPECT_GT(getxattr(path_.c_str(), "system.posix_acl_access", nullptr, 0), 0);
  }
  ASSERT_TRUE(socket.Admit({}).ok());
  EXPECT_FALSE(socket.open_to_all());
  EXPECT_EQ(Mode(), 0600u);
}

}  // namespace
}  // namespace shunt
