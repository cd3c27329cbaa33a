// SPDX-License-Identifier: Apache-2.0
#include "net/twin_pool.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

namespace shunt::net {

Result<Fd> TwinPool::Make(const Kind& kind) {
  Fd twin(socket(kind.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!twin.valid()) return FailErrno();
  const Result<void> locked =
      kind.device == 0 ? kind.lock->lock.Attach(twin.get()) : BindToDevice(twin.get(), kind.device);
  if (!locked) return tl::unexpected(locked.error());
  return twin;
}

void TwinPool::Connect(Mailbox& reactor, Mailbox& control) {
  reactor_ = &reactor;
  control_ = &control;
}

void TwinPool::Shelf::Clear() {
  for (Fd& twin : twins) twin.reset();
  kind = {};
  count = 0;
}

TwinPool::Shelf& TwinPool::ShelfFor(const Kind& kind) {
  Shelf* oldest = &shelves_[0];
  for (Shelf& shelf : shelves_) {
    if (shelf.kind == kind) return shelf;
    if (shelf.kind.lock == nullptr) {
      if (oldest->kind.lock != nullptr) oldest = &shelf;
    } else if (oldest->kind.lock != nullptr && shelf.used_at < oldest->used_at) {
      oldest = &shelf;
    }
  }
  oldest->Clear();
  oldest->kind = kind;
  return *oldest;
}

Result<Fd> TwinPool::Take(const NumberedLock& lock, int family, int device) {
  Shelf& shelf = ShelfFor({.lock = &lock, .family = family, .device = device});
  shelf.used_at = ++takes_;
  if (shelf.count <= kTwinsPerShelf - kTwinsPerRefill) AskForRefill(shelf);
  if (shelf.count > 0) return std::move(shelf.twins[--shelf.count]);
  return Make(shelf.kind);
}

void TwinPool::AskForRefill(Shelf& shelf) {
  Refill& refill = shelf.refill;
  if (control_ == nullptr || refill.under_way) return;
  refill.under_way = true;
  refill.pool = this;
  refill.shelf = static_cast<size_t>(&shelf - shelves_.data());
  refill.kind = shelf.kind;
  refill.message = {.deliver = MakeOnControlThread, .context = &refill};
  control_->Push(&refill.message);
}

// Out of descriptors or memory: fewer come back, and Take() tells whoever needs one.
void TwinPool::MakeOnControlThread(Message& message) {
  auto& refill = message.about<Refill>();
  refill.count = 0;
  while (refill.count < refill.twins.size()) {
    Result<Fd> twin = Make(refill.kind);
    if (!twin) break;
    refill.twins[refill.count++] = std::move(*twin);
  }
  message.deliver = TakeRefill;
  refill.pool->reactor_->Push(&message);
}

void TwinPool::TakeRefill(Message& message) {
  auto& refill = message.about<Refill>();
  Shelf& shelf = refill.pool->shelves_[refill.shelf];
  for (size_t i = 0; i < refill.count; ++i) {
    if (shelf.kind == refill.kind && shelf.count < kTwinsPerShelf) {
      shelf.twins[shelf.count++] = std::move(refill.twins[i]);
    } else {
      refill.twins[i].reset();  // the shelf has another use by now
    }
  }
  refill.under_way = false;
}

void TwinPool::Retire(uint64_t lock_number) {
  for (Shelf& shelf : shelves_) {
    if (shelf.kind.lock != nullptr && shelf.kind.lock->number == lock_number) shelf.Clear();
  }
}

}  // namespace shunt::net
