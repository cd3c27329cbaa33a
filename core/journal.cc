// SPDX-License-Identifier: Apache-2.0
#include "core/journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "core/result.h"

namespace shunt {

struct Journal::Header {
  // Changes with the layout of anything in here. A journal of another layout is not understood: its calls are
  // begun anew by nobody, so a release that changes it says so (docs/architecture.md).
  static constexpr uint64_t kMagic = 0x34'6c'6e'72'6a'68'73;  // "shjrnl4"
  uint64_t magic = kMagic;
  uint64_t part_bytes = 0;
  Counters inherited;
};

// One reactor's.
struct Journal::Part {
  Counters counters;
  std::array<JournalRecord, kRecordsPerReactor> records;
};

void JournalRecord::NoteAddress(std::span<const std::byte> bytes) {
  address_size = static_cast<uint32_t>(std::min(bytes.size(), address.size()));
  std::memcpy(address.data(), bytes.data(), address_size);
}

void JournalRecord::TakeOver(JournalRecord& left) {
  listener.store(left.listener.load(std::memory_order_relaxed), std::memory_order_relaxed);
  resumed = left.resumed + 1;
  number = left.number;
  flags = left.flags;
  inode = left.inode;
  deadline_ns = left.deadline_ns;
  received_at = left.received_at;
  address = left.address;
  address_size = left.address_size;
  reply = left.reply;
  Enter(left.stage.load(std::memory_order_acquire));
  received.CopyFrom(left.received);
  left.Clear();
}

FreeRecords::FreeRecords(std::span<JournalRecord> records)
    : free_(std::make_unique<JournalRecord*[]>(records.size())) {
  for (JournalRecord& record : records) free_[count_++] = &record;
}

size_t Journal::BytesFor(size_t reactors) {
  return sizeof(Header) + reactors * sizeof(Part);
}

Journal::Header& Journal::header() const {
  return *static_cast<Header*>(memory_);
}

Journal::Part& Journal::part(size_t reactor) const {
  SHUNT_CHECK(reactor < reactors_);
  return reinterpret_cast<Part*>(static_cast<std::byte*>(memory_) + sizeof(Header))[reactor];
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Create(size_t reactors) {
  const size_t bytes = BytesFor(reactors);
  Fd file(memfd_create("shunt-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Sealed, so that an engine that was taken over cannot take the memory away under those who read it.
  if (!file.valid() || ftruncate(file.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0)
    return ToStatus({errno}, "make a journal");
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.get(), 0);
  if (memory == MAP_FAILED) return ToStatus({errno}, "map a journal");
  new (memory) Header{.part_bytes = sizeof(Part)};
  std::unique_ptr<Journal> journal(new Journal(std::move(file), memory, bytes, reactors));
  for (size_t i = 0; i < reactors; ++i) new (&journal->part(i)) Part;
  return journal;
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(Fd file) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return ToStatus({errno}, "look at a journal");
  const auto bytes = static_cast<size_t>(status.st_size);
  const int seals = fcntl(file.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
    return absl::InvalidArgumentError("a journal that its engine could take away");
  if (bytes < sizeof(Header) || (bytes - sizeof(Header)) % sizeof(Part) != 0)
    return absl::InvalidArgumentError("a journal of another size than ours");
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return ToStatus({errno}, "map a journal");
  std::unique_ptr<Journal> journal(
      new Journal(std::move(file), memory, bytes, (bytes - sizeof(Header)) / sizeof(Part)));
  if (journal->header().magic != Header::kMagic || journal->header().part_bytes != sizeof(Part))
    return absl::InvalidArgumentError("a journal of another layout than ours");
  return journal;
}

Journal::~Journal() {
  munmap(memory_, bytes_);
}

std::span<JournalRecord> Journal::records(size_t reactor) const {
  return part(reactor).records;
}
Counters& Journal::counters(size_t reactor) const {
  return part(reactor).counters;
}
Counters& Journal::inherited() const {
  return header().inherited;
}

std::vector<JournalRecord*> Journal::Unanswered() const {
  std::vector<JournalRecord*> found;
  for (size_t i = 0; i < reactors_; ++i) {
    for (JournalRecord& record : records(i)) {
      if (record.id() != 0) found.push_back(&record);
    }
  }
  return found;
}

}  // namespace shunt
