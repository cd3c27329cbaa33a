// SPDX-License-Identifier: Apache-2.0
#include "tools/keeper_protocol.h"

#include <algorithm>
#include <cstring>

namespace shunt {
namespace {

bool NamesHolding(KeeperMessage message) {
  switch (message) {
    case KeeperMessage::kHold:
    case KeeperMessage::kDrop:
    case KeeperMessage::kServing:
    case KeeperMessage::kAgain:
    case KeeperMessage::kGive:
      return true;
    default:
      return false;
  }
}

bool CarriesDescriptors(KeeperMessage message) {
  return message == KeeperMessage::kHold || message == KeeperMessage::kGive ||
         message == KeeperMessage::kWorker;
}

bool IsMessage(uint32_t message) {
  return (message >= static_cast<uint32_t>(KeeperMessage::kHold) &&
          message <= static_cast<uint32_t>(KeeperMessage::kAgain)) ||
         (message >= static_cast<uint32_t>(KeeperMessage::kGive) &&
          message <= static_cast<uint32_t>(KeeperMessage::kUpgradeFailed));
}

}  // namespace

KeeperPacket MakePacket(KeeperMessage message, HoldingName name, uint64_t value, std::string_view text) {
  KeeperPacket packet;
  packet.message = static_cast<uint32_t>(message);
  packet.tag = static_cast<uint32_t>(name.tag);
  packet.id = name.id;
  packet.value = value;
  packet.text_size = static_cast<uint32_t>(std::min(text.size(), kPacketText));
  if (packet.text_size > 0) std::memcpy(packet.text, text.data(), packet.text_size);
  return packet;
}

bool IsWellFormed(const KeeperPacket& packet, size_t descriptors) {
  if (!IsMessage(packet.message) || packet.text_size > kPacketText || packet.reserved != 0) return false;
  const auto message = static_cast<KeeperMessage>(packet.message);
  if (packet.tag > kHighestHoldingTag) return false;
  if (NamesHolding(message) && packet.tag == 0) return false;
  if (message == KeeperMessage::kWorker) return descriptors == 1;
  if (CarriesDescriptors(message)) return descriptors >= 1 && descriptors <= kHoldingDescriptors;
  return descriptors == 0;
}

}  // namespace shunt
