// SPDX-License-Identifier: Apache-2.0
#include "net/twin_pool.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>

namespace shunt::net {
namespace {

Result<Fd> MakeTwin(const SocketLock& lock, int family) {
  Fd twin(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!twin.valid()) return FailErrno();
  if (lock.kind() == SocketLock::Kind::kProgram) {
    if (const Result<void> locked = lock.Attach(twin.get()); !locked) return tl::unexpected(locked.error());
  }
  return twin;
}

}  // namespace

void TwinPool::Shelf::Clear() {
  for (Fd& twin : twins) twin.reset();
  lock = nullptr;
  count = 0;
}

TwinPool::Shelf& TwinPool::ShelfFor(const NumberedLock& lock, int family) {
  Shelf* oldest = &shelves_[0];
  for (Shelf& shelf : shelves_) {
    if (shelf.lock != nullptr && shelf.lock->number == lock.number && shelf.family == family) return shelf;
    if (shelf.lock == nullptr) {
      if (oldest->lock != nullptr) oldest = &shelf;
    } else if (oldest->lock != nullptr && shelf.used_at < oldest->used_at) {
      oldest = &shelf;
    }
  }
  oldest->Clear();
  oldest->lock = &lock;
  oldest->family = family;
  return *oldest;
}

Result<Fd> TwinPool::Take(const NumberedLock& lock, int family) {
  Shelf& shelf = ShelfFor(lock, family);
  shelf.used_at = ++takes_;
  if (shelf.count > 0) return std::move(shelf.twins[--shelf.count]);
  return MakeTwin(lock.lock, family);
}

bool TwinPool::WantsFilling() const {
  return std::any_of(shelves_.begin(), shelves_.end(), [](const Shelf& shelf) {
    return shelf.lock != nullptr && shelf.count < kTwinsPerShelf;
  });
}

void TwinPool::Fill() {
  size_t made = 0;
  for (Shelf& shelf : shelves_) {
    while (shelf.lock != nullptr && shelf.count < kTwinsPerShelf && made < kTwinsPerFill) {
      Result<Fd> twin = MakeTwin(shelf.lock->lock, shelf.family);
      if (!twin) return;  // out of descriptors or memory: Take() will say so to whoever needs one
      shelf.twins[shelf.count++] = std::move(*twin);
      ++made;
    }
  }
}

void TwinPool::Retire(uint64_t lock_number) {
  for (Shelf& shelf : shelves_) {
    if (shelf.lock != nullptr && shelf.lock->number == lock_number) shelf.Clear();
  }
}

}  // namespace shunt::net
