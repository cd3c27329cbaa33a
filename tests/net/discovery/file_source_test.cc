// SPDX-License-Identifier: Apache-2.0
// FileSource on real files. Time is virtual, save where a writer runs beside it; inotify needs none: an event
// is there when the call that caused it returns.

#include "net/discovery/file_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "absl/strings/str_split.h"
#include "core/clock.h"
#include "core/limits.h"
#include "tests/net/discovery/temporary_folder.h"
#include "tests/net/discovery/told.h"

namespace shunt::net {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using testing_support::OpenForWriting;
using testing_support::Replace;
using testing_support::TemporaryFolder;
using testing_support::WriteInPlace;
using testing_support::WriteTo;

namespace fs = std::filesystem;

// An address in each line; # begins a comment. Nothing at all is an error, as in the real parser.
absl::StatusOr<std::vector<BackendSpec>> ParseLines(const std::string& text, const std::string& name) {
  if (text.empty()) return absl::InvalidArgumentError(name + ": it is empty");
  std::vector<BackendSpec> backends;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    const absl::StatusOr<SockAddr> address = SockAddr::FromText(line);
    if (!address.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":", number, ": should be ADDRESS:PORT"));
    }
    backends.push_back({.address = *address});
  }
  return backends;
}

class FileSourceTest : public testing::Test {
 protected:
  void Watch(const std::string& path) {
    source_ = std::make_unique<FileSource>(path, ParseLines, told_.Taker());
    source_->Advance(now_);
  }
  // What is told because its descriptor says so; no time goes by.
  std::vector<std::string> AtOnce() {
    EXPECT_TRUE(Readable()) << "nobody would call Advance() now";
    for (int turns = 0; turns < 10 && Readable(); ++turns) source_->Advance(now_);
    EXPECT_FALSE(Readable()) << "nobody would sleep now";
    return told_.Take();
  }
  // What is told in the time to come, in which nothing happens.
  std::vector<std::string> After(int64_t time) {
    const int64_t end = now_ + time;
    for (int turns = 0; turns < 1000 && source_->NextDue() <= end; ++turns) {
      now_ = std::max(now_, source_->NextDue());
      source_->Advance(now_);
    }
    now_ = end;
    return told_.Take();
  }
  // Directories that are watched, as the kernel counts.
  int Watches() {
    std::ifstream info(absl::StrCat("/proc/self/fdinfo/", source_->event_fd()));
    int count = 0;
    for (std::string line; std::getline(info, line);) count += line.starts_with("inotify wd:") ? 1 : 0;
    return count;
  }
  bool Readable() {
    pollfd event{.fd = source_->event_fd(), .events = POLLIN, .revents = 0};
    return poll(&event, 1, 0) == 1;
  }

  TemporaryFolder folder_;
  Told told_;
  std::unique_ptr<FileSource> source_;
  int64_t now_ = 1'000'000'000'000;
};

constexpr int64_t kSecond = 1'000'000'000;

TEST_F(FileSourceTest, TellsWhatIsThereAtFirst) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n192.0.2.2:80\n");
  Watch(folder_ / "backends");
  EXPECT_THAT(told_.Take(), ElementsAre("192.0.2.1:80 192.0.2.2:80"));
  EXPECT_EQ(source_->Title(), "file " + folder_ / "backends");
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, TellsAFileThatIsRenamedIntoItsPlaceAtOnce) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  Replace(folder_ / "backends", "192.0.2.2:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.2:80"));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, TellsWhatIsWrittenInPlaceWhenItIsClosed) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  {
    const Fd file = OpenForWriting(folder_ / "backends");
    source_->Advance(now_);
    WriteTo(file, "192.0.2.2:80\n");
    source_->Advance(now_);
    WriteTo(file, "192.0.2.3:80\n");
    source_->Advance(now_);
    EXPECT_THAT(told_.Take(), IsEmpty()) << "that was not the whole file";
  }
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.2:80 192.0.2.3:80"));
}

TEST_F(FileSourceTest, TellsNothingWhereTheBackendsAreTheSame) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  EXPECT_THAT(AtOnce(), IsEmpty());
  Replace(folder_ / "backends", "# the same with a comment\n192.0.2.1:80\n");
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, ReadsAFileThatChangesAllTheTimeTenTimesASecondAndItsLastChange) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  std::vector<std::string> told;
  std::string last;
  const auto tell = [&told](const std::vector<std::string>& more) {
    told.insert(told.end(), more.begin(), more.end());
  };
  constexpr int kSeconds = 10;
  for (int change = 0; change < kSeconds * 100 - 3; ++change) {
    last = absl::StrCat("192.0.2.1:", 1000 + change);
    Replace(folder_ / "backends", last + "\n");
    if (Readable()) tell(AtOnce());
    tell(After(kSecond / 100));
  }
  constexpr size_t kRead = kSeconds * kSecond / FileSource::kApart;
  EXPECT_GE(told.size(), kRead);
  EXPECT_LE(told.size(), kRead + FileSource::kAhead / FileSource::kApart + 1);
  EXPECT_NE(told.back(), last) << "it came while nobody reads";
  EXPECT_THAT(After(FileSource::kApart), ElementsAre(last));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, IsNotWokenByOtherFilesAndNotMisledByThem) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  WriteInPlace(folder_ / "backends.bak", "192.0.2.9:80\n");
  Replace(folder_ / "other", "192.0.2.9:80\n");
  EXPECT_THAT(AtOnce(), IsEmpty());
}

TEST_F(FileSourceTest, KeepsTheLastGoodListWhenTheFileIsWrongAndSaysSoOnce) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  Replace(folder_ / "backends", "192.0.2.1:80\n192.0.2.2:\n");
  EXPECT_THAT(AtOnce(), ElementsAre("error: " + folder_ / "backends:2: should be ADDRESS:PORT"));
  Replace(folder_ / "backends", "192.0.2.3:80\n192.0.2.2:\n");
  EXPECT_THAT(AtOnce(), IsEmpty()) << "the same error";
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
  Replace(folder_ / "backends", "192.0.2.1:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.1:80")) << "the old list, but it is right again";
}

TEST_F(FileSourceTest, AFileThatIsGoneIsAnErrorOnceItHasBeenGoneForAWhile) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  fs::remove(folder_ / "backends");
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(FileSource::kSettle - 1), IsEmpty());
  EXPECT_THAT(After(1), ElementsAre(AllOf(StartsWith("error: read " + folder_ / "backends"),
                                          HasSubstr("No such file"), HasSubstr("stays in force"))));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.1:80"));
}

TEST_F(FileSourceTest, AFileThatIsMovedAwayAndWrittenAnewIsNoError) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  // As some editors do it.
  fs::rename(folder_ / "backends", folder_ / "backends~");
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(FileSource::kSettle / 2), IsEmpty());
  {
    const Fd file = OpenForWriting(folder_ / "backends");
    EXPECT_THAT(AtOnce(), IsEmpty());
    EXPECT_THAT(After(FileSource::kSettle - 1), IsEmpty()) << "the time begins anew";
    WriteTo(file, "192.0.2.2:80\n");
  }
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.2:80"));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, WaitsForADirectoryThatIsNotThereYet) {
  Watch(folder_ / "volume/backends");
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("No such file")));
  fs::create_directory(folder_ / "volume");
  WriteInPlace(folder_ / "volume/backends", "192.0.2.1:80\n");
  EXPECT_THAT(After(FileSource::kBlindPeriod + FileSource::kSettle), ElementsAre("192.0.2.1:80"));
  Replace(folder_ / "volume/backends", "192.0.2.2:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.2:80"));
}

TEST_F(FileSourceTest, FindsADirectoryAgainThatWasRemovedOrExchanged) {
  fs::create_directory(folder_ / "volume");
  WriteInPlace(folder_ / "volume/backends", "192.0.2.1:80\n");
  Watch(folder_ / "volume/backends");
  told_.Take();
  fs::remove_all(folder_ / "volume");
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(FileSource::kSettle), ElementsAre(HasSubstr("No such file")));
  fs::create_directory(folder_ / "volume");
  WriteInPlace(folder_ / "volume/backends", "192.0.2.2:80\n");
  EXPECT_THAT(After(FileSource::kBlindPeriod + FileSource::kSettle), ElementsAre("192.0.2.2:80"));

  fs::create_directory(folder_ / "next");
  WriteInPlace(folder_ / "next/backends", "192.0.2.3:80\n");
  fs::rename(folder_ / "volume", folder_ / "old");
  fs::rename(folder_ / "next", folder_ / "volume");
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(FileSource::kSettle), ElementsAre("192.0.2.3:80"));
  WriteInPlace(folder_ / "old/backends", "192.0.2.9:80\n");
  WriteInPlace(folder_ / "volume/backends", "192.0.2.4:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.4:80"));
  EXPECT_EQ(Watches(), 1) << "the old one is of no interest any more";
}

TEST_F(FileSourceTest, NoticesWithinItsPeriodWhatInotifyDoesNotSee) {
  fs::create_directories(folder_ / "up/volume");
  WriteInPlace(folder_ / "up/volume/backends", "192.0.2.1:80\n");
  Watch(folder_ / "up/volume/backends");
  told_.Take();
  // A directory further up.
  fs::create_directories(folder_ / "up.new/volume");
  WriteInPlace(folder_ / "up.new/volume/backends", "192.0.2.2:80\n");
  fs::rename(folder_ / "up", folder_ / "up.old");
  fs::rename(folder_ / "up.new", folder_ / "up");
  EXPECT_FALSE(Readable());
  EXPECT_THAT(After(FileSource::kPeriod + FileSource::kSettle), ElementsAre("192.0.2.2:80"));
}

// As the kubelet writes a volume: a new directory, a new link to it, renamed over the old one.
class Volume {
 public:
  explicit Volume(std::string path) : path_(std::move(path)) {
    fs::create_directory(path_);
    fs::create_symlink("..data/backends", path_ + "/backends");
  }
  void Write(const std::string& text) {
    const std::string folder = absl::StrCat("..2026_", ++version_);
    fs::create_directory(path_ + "/" + folder);
    WriteInPlace(path_ + "/" + folder + "/backends", text);
    fs::create_symlink(folder, path_ + "/..data_tmp");
    fs::rename(path_ + "/..data_tmp", path_ + "/..data");
    if (version_ > 1) fs::remove_all(absl::StrCat(path_, "/..2026_", version_ - 1));
  }

 private:
  const std::string path_;
  int version_ = 0;
};

TEST_F(FileSourceTest, FollowsTheLinksOfAConfigMapVolume) {
  Volume volume(folder_ / "volume");
  volume.Write("192.0.2.1:80\n");
  // A container's volume is often linked to itself.
  fs::create_symlink("volume", folder_ / "here");
  Watch(folder_ / "here/backends");
  EXPECT_THAT(told_.Take(), ElementsAre("192.0.2.1:80"));
  volume.Write("192.0.2.2:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.2:80"));
  // Each link on the way can be turned.
  Volume other(folder_ / "other");
  other.Write("192.0.2.3:80\n");
  fs::create_symlink(folder_ / "other", folder_ / "there");
  fs::rename(folder_ / "there", folder_ / "here");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.3:80"));
  volume.Write("192.0.2.9:80\n");
  other.Write("192.0.2.4:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.4:80"));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
  EXPECT_EQ(Watches(), 3) << "where `here`, the volume's two links and the file are";
}

TEST_F(FileSourceTest, EachListThatIsToldDuringTenThousandSwapsWasWrittenWhole) {
  constexpr int kSwaps = 10'000;
  constexpr int kBackends = 20;
  // All backends of a list have the same port, and none is missing.
  const auto list = [](int number, const char* separator) {
    std::string text;
    for (int i = 0; i < kBackends; ++i)
      absl::StrAppend(&text, "192.0.2.", i, ":", 10'000 + number, separator);
    return text;
  };
  Volume volume(folder_ / "volume");
  volume.Write(list(0, "\n"));
  std::vector<std::string> wrong;
  int told = 0;
  int last = -1;
  FileSource source(folder_ / "volume/backends", ParseLines, [&](const auto& found) {
    ++told;
    if (!found.ok()) {
      wrong.push_back(found.status().ToString());
      return;
    }
    const int number = found->empty() ? -1 : (*found)[0].address.port() - 10'000;
    std::string text;
    for (const BackendSpec& backend : *found) absl::StrAppend(&text, backend.address.ToString(), "\n");
    if (number <= last || text != list(number, "\n")) wrong.push_back(absl::StrCat(last, " then ", text));
    last = number;
  });
  source.Advance(MonotonicNow());
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 1; i <= kSwaps; ++i) volume.Write(list(i, "\n"));
    done = true;
  });
  const int64_t end = MonotonicNow() + 100 * kSecond;
  while (last < kSwaps && wrong.empty() && MonotonicNow() < end) {
    pollfd event{.fd = source.event_fd(), .events = POLLIN, .revents = 0};
    const int64_t wait = std::max<int64_t>(0, source.NextDue() - MonotonicNow());
    poll(&event, 1, static_cast<int>(wait / 1'000'000) + 1);
    source.Advance(MonotonicNow());
  }
  writer.join();
  EXPECT_THAT(wrong, IsEmpty());
  EXPECT_EQ(last, kSwaps) << "the last one has to be told";
  RecordProperty("told", told);
  std::printf("%d of %d lists were told\n", told, kSwaps + 1);
}

TEST_F(FileSourceTest, ReadsOnlyFilesAndWaitsForNone) {
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  Watch(folder_ / "fifo");
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("fifo is not a file")));
  Watch(folder_ / "");
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("is not a file")));
  Watch("/dev/zero");
  EXPECT_THAT(told_.Take(), ElementsAre("error: /dev/zero is not a file: put one there, or a link to one; "
                                        "what was read before stays in force"));
  fs::create_symlink("b", folder_ / "a");
  fs::create_symlink("a", folder_ / "b");
  Watch(folder_ / "a");
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("Too many levels of symbolic links")));
}

TEST_F(FileSourceTest, AFifoInThePlaceOfTheFileIsAnErrorUntilAFileIsThere) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  fs::rename(folder_ / "fifo", folder_ / "backends");
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(FileSource::kSettle), ElementsAre(HasSubstr("is not a file")));
  Replace(folder_ / "backends", "192.0.2.2:80\n");
  EXPECT_THAT(AtOnce(), ElementsAre("192.0.2.2:80"));
}

TEST_F(FileSourceTest, RefusesWhatIsTooLargeWithoutReadingIt) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  ASSERT_EQ(ftruncate(OpenForWriting(folder_ / "backends").get(), off_t{limits::kBackendFileBytes} + 1), 0);
  EXPECT_THAT(AtOnce(), ElementsAre(HasSubstr("has 2097153 bytes: more than 2097152 are not read")));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, ReadsTwoMebibytes) {
  const std::string line = "192.0.2.1:80\n";
  std::string text = "#";
  text.resize(limits::kBackendFileBytes - line.size() - 1, '#');
  WriteInPlace(folder_ / "backends", text + "\n" + line);
  ASSERT_EQ(fs::file_size(folder_ / "backends"), 2u << 20);
  Watch(folder_ / "backends");
  EXPECT_THAT(told_.Take(), ElementsAre("192.0.2.1:80"));
}

TEST_F(FileSourceTest, TakesAFileAfterItsRightsAreMended) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  ASSERT_EQ(chmod((folder_ / "backends").c_str(), 0), 0);
  Watch(folder_ / "backends");
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("Permission denied")));
  EXPECT_THAT(After(FileSource::kSettle), IsEmpty());
  EXPECT_LE(source_->NextDue(), now_ + FileSource::kBlindPeriod)
      << "looks again, should nothing report the change";
  ASSERT_EQ(chmod((folder_ / "backends").c_str(), 0644), 0);
  EXPECT_THAT(AtOnce(), IsEmpty());
  EXPECT_THAT(After(FileSource::kSettle), ElementsAre("192.0.2.1:80"));
}

// No descriptor can be made in the meantime.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const Fd next(dup(STDIN_FILENO));
    const rlimit none{static_cast<rlim_t>(next.get()), before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(FileSourceTest, LooksEveryTwoSecondsWithoutInotifyAndSaysSo) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  {
    const NoDescriptors none;
    source_ = std::make_unique<FileSource>(folder_ / "backends", ParseLines, told_.Taker());
  }
  source_->Advance(now_);
  EXPECT_EQ(source_->event_fd(), -1);
  EXPECT_THAT(source_->Title(), AllOf(StartsWith("file " + folder_ / "backends (looked at every 2 s"),
                                      HasSubstr("Too many open files"), HasSubstr("fs.inotify")));
  EXPECT_THAT(told_.Take(), ElementsAre("192.0.2.1:80"));
  Replace(folder_ / "backends", "192.0.2.2:80\n");
  EXPECT_THAT(After(FileSource::kBlindPeriod + FileSource::kSettle), ElementsAre("192.0.2.2:80"));
  WriteInPlace(folder_ / "backends", "192.0.2.3:80\n");
  EXPECT_THAT(After(FileSource::kBlindPeriod + FileSource::kSettle), ElementsAre("192.0.2.3:80"));
  EXPECT_THAT(After(60 * kSecond), IsEmpty());
}

TEST_F(FileSourceTest, WantOfDescriptorsPasses) {
  WriteInPlace(folder_ / "backends", "192.0.2.1:80\n");
  Watch(folder_ / "backends");
  told_.Take();
  Replace(folder_ / "backends", "192.0.2.2:80\n");
  {
    const NoDescriptors none;
    EXPECT_THAT(AtOnce(), IsEmpty());
    EXPECT_THAT(After(FileSource::kSettle), ElementsAre(HasSubstr("Too many open files")));
    EXPECT_THAT(After(FileSource::kBlindPeriod), IsEmpty());
  }
  EXPECT_THAT(After(FileSource::kBlindPeriod + FileSource::kSettle), ElementsAre("192.0.2.2:80"));
}

TEST_F(FileSourceTest, HoldsNoDescriptorsBetweenLooksAndNoneAtTheEnd) {
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  Volume volume(folder_ / "volume");
  volume.Write("192.0.2.1:80\n");
  const auto before = open_files();
  Watch(folder_ / "volume/backends");
  for (int i = 0; i < 10; ++i) {
    volume.Write(absl::StrCat("192.0.2.", i, ":80\n"));
    source_->Advance(now_);
    EXPECT_EQ(open_files(), before + 1);
  }
  source_.reset();
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace shunt::net
