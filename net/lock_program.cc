// SPDX-License-Identifier: Apache-2.0
// Writes the lock's instructions. A small assembler with labels, then the program from top to bottom.
//
// TCP hands the packet over with the data at the TCP header; the IP header is reached by the SKF_NET_OFF
// window of the packet loads. Those loads (BPF_LD | BPF_ABS) turn to host byte order, take the context from
// r6, leave their result in r0, clobber r1 to r5, and end the program with 0 (drop) when the byte is not
// there. The addresses in the IP header are those that the kernel looked the socket up by: source routing and
// mobility headers have been applied to it by then.

#include "net/lock_program.h"

#include <linux/filter.h>
#include <netinet/tcp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "core/check.h"

namespace shunt::net {
namespace {

// The registers' jobs for the whole program.
constexpr uint8_t kResult = BPF_REG_0;   // packet loads, exit value
constexpr uint8_t kScratch = BPF_REG_1;  // until the words of an IPv6 address need it
constexpr uint8_t kContext = BPF_REG_6;
constexpr uint8_t kPort = BPF_REG_7;
constexpr uint8_t kState = BPF_REG_9;
constexpr uint8_t kFrame = BPF_REG_10;
// An IPv6 address, most significant word first; loaded from the stack, since packet loads clobber them.
constexpr std::array<uint8_t, 4> kWord = {BPF_REG_1, BPF_REG_2, BPF_REG_3, BPF_REG_4};

// Offsets into the headers.
constexpr uint32_t kTcpSourcePort = 0;
constexpr uint32_t kTcpDestinationPort = 2;
constexpr uint32_t kTcpFlags = 13;
constexpr uint32_t kIp = static_cast<uint32_t>(SKF_NET_OFF);

enum class End : uint8_t { kSource, kDestination };

constexpr uint32_t IpV4AddressOffset(End end) {
  return kIp + (end == End::kSource ? 12 : 16);
}
constexpr uint32_t IpV6AddressOffset(End end) {
  return kIp + (end == End::kSource ? 8 : 24);
}

using Words = std::array<uint32_t, 4>;

Words WordsOf(const IpAddress& ip) {
  return {static_cast<uint32_t>(ip.high() >> 32), static_cast<uint32_t>(ip.high()),
          static_cast<uint32_t>(ip.low() >> 32), static_cast<uint32_t>(ip.low())};
}

// The mask for word `index` of an address whose first `prefix_len` bits count.
uint32_t WordMask(int prefix_len, int index) {
  const int bits = prefix_len - 32 * index;
  if (bits <= 0) return 0;
  if (bits >= 32) return 0xffffffff;
  return ~uint32_t{0} << (32 - bits);
}

class Assembler {
 public:
  using Label = size_t;

  Label NewLabel() {
    places_.push_back(kNowhere);
    return places_.size() - 1;
  }
  void Place(Label label) { places_[label] = code_.size(); }

  void Move(uint8_t to, uint8_t from) { Emit(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
  void Set(uint8_t to, uint32_t value) { Emit(BPF_ALU | BPF_MOV | BPF_K, to, 0, 0, value); }
  void And(uint8_t to, uint32_t value) { Emit(BPF_ALU | BPF_AND | BPF_K, to, 0, 0, value); }
  void Load(uint8_t size, uint8_t to, uint8_t base, size_t offset) {
    Emit(static_cast<uint8_t>(BPF_LDX | BPF_MEM | size), to, base, static_cast<int16_t>(offset), 0);
  }
  void LoadStack(uint8_t to, int16_t offset) { Emit(BPF_LDX | BPF_MEM | BPF_W, to, kFrame, offset, 0); }
  void StoreStack(int16_t offset, uint8_t from) { Emit(BPF_STX | BPF_MEM | BPF_W, kFrame, from, offset, 0); }
  void LoadPacket(uint8_t size, uint32_t offset) {
    Emit(static_cast<uint8_t>(BPF_LD | BPF_ABS | size), 0, 0, 0, offset);
  }
  void Exit() { Emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

  void Jump(Label label) { EmitJump(BPF_JMP | BPF_JA, 0, 0, label); }
  void IfNull(uint8_t pointer, Label label) { EmitJump(BPF_JMP | BPF_JEQ | BPF_K, pointer, 0, label); }
  // These compare the lower 32 bits.
  void IfEqual(uint8_t left, uint32_t right, Label label) {
    EmitJump(BPF_JMP32 | BPF_JEQ | BPF_K, left, right, label);
  }
  void IfNotEqual(uint8_t left, uint32_t right, Label label) {
    EmitJump(BPF_JMP32 | BPF_JNE | BPF_K, left, right, label);
  }
  void IfAnyBit(uint8_t left, uint32_t bits, Label label) {
    EmitJump(BPF_JMP32 | BPF_JSET | BPF_K, left, bits, label);
  }

  std::vector<bpf_insn> Finish() {
    for (const auto& [at, label] : jumps_) {
      SHUNT_CHECK(places_[label] != kNowhere);
      const size_t distance = places_[label] - at - 1;  // jumps go forward only
      SHUNT_CHECK(places_[label] > at && distance <= std::numeric_limits<int16_t>::max());
      code_[at].off = static_cast<int16_t>(distance);
    }
    return std::move(code_);
  }

 private:
  static constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

  void Emit(uint8_t code, uint8_t to, uint8_t from, int16_t offset, uint32_t immediate) {
    bpf_insn instruction = {};
    instruction.code = code;
    instruction.dst_reg = to & 0xf;
    instruction.src_reg = from & 0xf;
    instruction.off = offset;
    instruction.imm = static_cast<int32_t>(immediate);
    code_.push_back(instruction);
  }
  void EmitJump(uint8_t code, uint8_t left, uint32_t right, Label label) {
    jumps_.push_back({code_.size(), label});
    Emit(code, left, 0, 0, right);
  }

  std::vector<bpf_insn> code_;
  std::vector<size_t> places_;                   // by label
  std::vector<std::pair<size_t, Label>> jumps_;  // instruction, where it goes
};

// Goes to `other` unless the packet is IPv4. Clobbers kResult.
void UnlessIpV4(Assembler& code, Assembler::Label other) {
  code.LoadPacket(BPF_B, kIp);
  code.And(kResult, 0xf0);
  code.IfNotEqual(kResult, 0x40, other);
}

// kWord = one of the packet's IPv6 addresses.
void LoadIpV6Address(Assembler& code, End end) {
  for (uint8_t i = 0; i < 4; ++i) {
    code.LoadPacket(BPF_W, IpV6AddressOffset(end) + 4u * i);
    code.StoreStack(static_cast<int16_t>(-16 + 4 * i), kResult);
  }
  for (uint8_t i = 0; i < 4; ++i) code.LoadStack(kWord[i], static_cast<int16_t>(-16 + 4 * i));
}

// Goes to `hit` if the address in kResult and the port in kPort are one of the IPv4 endpoints.
void MatchIpV4Endpoints(Assembler& code, const std::vector<Endpoint>& endpoints, Assembler::Label hit) {
  for (const Endpoint& endpoint : endpoints) {
    if (!endpoint.ip.IsV4()) continue;
    if (endpoint.ip.IsUnspecified()) {
      code.IfEqual(kPort, endpoint.port, hit);
      continue;
    }
    const Assembler::Label next = code.NewLabel();
    code.IfNotEqual(kPort, endpoint.port, next);
    code.IfEqual(kResult, endpoint.ip.V4Bits(), hit);
    code.Place(next);
  }
}

// The same for the address in kWord and the IPv6 endpoints.
void MatchIpV6Endpoints(Assembler& code, const std::vector<Endpoint>& endpoints, Assembler::Label hit) {
  for (const Endpoint& endpoint : endpoints) {
    if (endpoint.ip.IsV4()) continue;
    if (endpoint.ip.IsUnspecified()) {
      code.IfEqual(kPort, endpoint.port, hit);
      continue;
    }
    const Words words = WordsOf(endpoint.ip);
    const Assembler::Label next = code.NewLabel();
    code.IfNotEqual(kPort, endpoint.port, next);
    for (size_t i = 0; i < 3; ++i) code.IfNotEqual(kWord[i], words[i], next);
    code.IfEqual(kWord[3], words[3], hit);
    code.Place(next);
  }
}

// Goes to `hit` if the address in kResult is in one of the IPv4 networks.
void MatchIpV4Networks(Assembler& code, const SubnetSet& networks, Assembler::Label hit) {
  for (const Subnet& network : networks) {
    if (!network.IsV4()) continue;
    const uint32_t mask = WordMask(network.prefix_len(), 0);
    code.Move(kScratch, kResult);
    code.And(kScratch, mask);
    code.IfEqual(kScratch, network.prefix().V4Bits(), hit);
  }
}

// The same for the address in kWord and one IPv6 network; falls through if it is not in there.
void MatchIpV6Network(Assembler& code, const Words& prefix, int prefix_len, Assembler::Label hit) {
  const Assembler::Label next = code.NewLabel();
  for (int i = 0; i < 4; ++i) {
    const auto word = static_cast<size_t>(i);
    const uint32_t mask = WordMask(prefix_len, i);
    if (mask == 0 && i > 0) break;  // ::/0 compares nothing with nothing: code behind a bare jump is refused
    if (mask == 0xffffffff) {
      code.IfNotEqual(kWord[word], prefix[word], next);
      continue;
    }
    code.Move(kResult, kWord[word]);
    code.And(kResult, mask);
    code.IfNotEqual(kResult, prefix[word], next);
  }
  code.Jump(hit);
  code.Place(next);
}

// Goes to `hit` if the packet is for an endpoint of `listen`. Clobbers everything but kContext and kState.
void MatchDestination(Assembler& code, const std::vector<Endpoint>& listen, Assembler::Label hit) {
  const Assembler::Label v6 = code.NewLabel();
  const Assembler::Label miss = code.NewLabel();
  code.LoadPacket(BPF_H, kTcpDestinationPort);
  code.Move(kPort, kResult);
  UnlessIpV4(code, v6);
  code.LoadPacket(BPF_W, IpV4AddressOffset(End::kDestination));
  MatchIpV4Endpoints(code, listen, hit);
  code.Jump(miss);
  code.Place(v6);
  LoadIpV6Address(code, End::kDestination);
  MatchIpV6Endpoints(code, listen, hit);
  code.Place(miss);
}

// Goes to one of the two.
void JudgeSource(Assembler& code, const LockPolicy& policy, Assembler::Label accept, Assembler::Label drop) {
  const Assembler::Label v6 = code.NewLabel();
  code.LoadPacket(BPF_H, kTcpSourcePort);
  code.Move(kPort, kResult);
  UnlessIpV4(code, v6);
  code.LoadPacket(BPF_W, IpV4AddressOffset(End::kSource));
  MatchIpV4Endpoints(code, policy.self, accept);
  MatchIpV4Networks(code, policy.deny, drop);
  code.Jump(accept);

  code.Place(v6);
  LoadIpV6Address(code, End::kSource);
  MatchIpV6Endpoints(code, policy.self, accept);
  for (const Subnet& network : policy.deny) {
    if (!network.IsV4()) MatchIpV6Network(code, WordsOf(network.prefix()), network.prefix_len(), drop);
  }
  // No honest IPv6 packet carries an IPv4-mapped address; the kernel drops them already.
  MatchIpV6Network(code, Words{0, 0, 0xffff, 0}, 96, drop);
  code.Jump(accept);
}

}  // namespace

std::vector<bpf_insn> LockProgram(const LockPolicy& policy) {
  SHUNT_CHECK(CheckLockPolicy(policy).ok());
  Assembler code;
  const Assembler::Label accept = code.NewLabel();
  const Assembler::Label drop = code.NewLabel();
  const Assembler::Label destination = code.NewLabel();
  const Assembler::Label source = code.NewLabel();
  const Assembler::Label syn = code.NewLabel();

  code.Move(kContext, BPF_REG_1);
  code.Load(BPF_DW, kScratch, kContext, offsetof(__sk_buff, sk));
  code.IfNull(kScratch, drop);  // never for a socket's own filter; the verifier wants to hear it
  code.Load(BPF_W, kState, kScratch, offsetof(bpf_sock, state));
  code.IfEqual(kState, BPF_TCP_LISTEN, destination);
  code.LoadPacket(BPF_B, kTcpFlags);
  code.IfAnyBit(kResult, TH_SYN, syn);
  code.IfEqual(kState, BPF_TCP_SYN_SENT, source);
  code.Jump(accept);

  code.Place(syn);
  code.IfAnyBit(kResult, TH_ACK, source);

  code.Place(destination);
  MatchDestination(code, policy.listen, accept);
  code.IfEqual(kState, BPF_TCP_LISTEN, drop);

  code.Place(source);
  JudgeSource(code, policy, accept, drop);

  code.Place(drop);
  code.Set(kResult, 0);
  code.Exit();
  code.Place(accept);
  code.Set(kResult, 0xffffffff);  // bytes to keep: all
  code.Exit();
  return code.Finish();
}

}  // namespace shunt::net
