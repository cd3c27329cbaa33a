// SPDX-License-Identifier: Apache-2.0
// TemporaryFolder: an empty directory that goes away with the test, and what one does with files in it. In
// memory if possible: tests that write thousands of files then take seconds on a slow disk, too.

#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/check.h"
#include "core/fd.h"

namespace shunt::testing_support {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    const bool has_memory = access("/dev/shm", W_OK) == 0;
    path_ = (has_memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
            "shunt-discovery-XXXXXX";
    SHUNT_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline Fd OpenForWriting(const std::string& path) {
  Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  SHUNT_CHECK(file.valid());
  return file;
}

inline void WriteTo(const Fd& file, const std::string& text) {
  SHUNT_CHECK(write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

inline void WriteInPlace(const std::string& path, const std::string& text) {
  WriteTo(OpenForWriting(path), text);
}

// As careful programs do it.
inline void Replace(const std::string& path, const std::string& text) {
  WriteInPlace(path + ".new", text);
  std::filesystem::rename(path + ".new", path);
}

}  // namespace shunt::testing_support
