// SPDX-License-Identifier: Apache-2.0

#include "tests/support/bpf_interpreter.h"

#include <cstring>

#include "core/check.h"

namespace shunt::testing {
namespace {

uint32_t LoadWord(const seccomp_data& call, uint32_t offset) {
  SHUNT_CHECK(offset % 4 == 0 && offset + 4 <= sizeof call);
  uint32_t word;
  std::memcpy(&word, reinterpret_cast<const char*>(&call) + offset, sizeof word);
  return word;
}

uint32_t Compute(int operation, uint32_t accumulator, uint32_t operand) {
  switch (operation) {
    case BPF_AND:
      return accumulator & operand;
    case BPF_OR:
      return accumulator | operand;
    case BPF_RSH:
      SHUNT_CHECK(operand < 32);
      return accumulator >> operand;
    case BPF_LSH:
      SHUNT_CHECK(operand < 32);
      return accumulator << operand;
    default:
      SHUNT_CHECK(!"an arithmetic operation that no filter of ours contains");
      return 0;
  }
}

bool Compare(int test, uint32_t accumulator, uint32_t operand) {
  switch (test) {
    case BPF_JEQ:
      return accumulator == operand;
    case BPF_JGT:
      return accumulator > operand;
    case BPF_JGE:
      return accumulator >= operand;
    case BPF_JSET:
      return (accumulator & operand) != 0;
    default:
      SHUNT_CHECK(!"no such test");
      return false;
  }
}

}  // namespace

BpfOutcome RunBpf(std::span<const sock_filter> program, const seccomp_data& call, std::set<size_t>* visited) {
  uint32_t accumulator = 0;
  uint32_t index_register = 0;
  uint32_t memory[BPF_MEMWORDS] = {};
  int executed = 0;
  for (size_t at = 0;; ++at) {  // Bounded: jumps go forward only, and running off the end is checked.
    SHUNT_CHECK(at < program.size());
    const sock_filter& instruction = program[at];
    if (visited != nullptr) visited->insert(at);
    ++executed;
    const int code = instruction.code;
    const uint32_t operand = BPF_SRC(code) == BPF_X ? index_register : instruction.k;
    switch (BPF_CLASS(code)) {
      case BPF_RET:
        return {BPF_RVAL(code) == BPF_A ? accumulator : instruction.k, executed};
      case BPF_LD:
        if (BPF_MODE(code) == BPF_ABS) {
          SHUNT_CHECK(BPF_SIZE(code) == BPF_W);
          accumulator = LoadWord(call, instruction.k);
        } else if (BPF_MODE(code) == BPF_IMM) {
          accumulator = instruction.k;
        } else {
          SHUNT_CHECK(BPF_MODE(code) == BPF_MEM && instruction.k < BPF_MEMWORDS);
          accumulator = memory[instruction.k];
        }
        break;
      case BPF_ST:
        SHUNT_CHECK(instruction.k < BPF_MEMWORDS);
        memory[instruction.k] = accumulator;
        break;
      case BPF_ALU:
        accumulator = Compute(BPF_OP(code), accumulator, operand);
        break;
      case BPF_MISC:
        if (BPF_MISCOP(code) == BPF_TAX) index_register = accumulator;
        if (BPF_MISCOP(code) == BPF_TXA) accumulator = index_register;
        break;
      case BPF_JMP:
        if (BPF_OP(code) == BPF_JA) {
          at += instruction.k;
        } else {
          at += Compare(BPF_OP(code), accumulator, operand) ? instruction.jt : instruction.jf;
        }
        break;
      default:
        SHUNT_CHECK(!"an instruction that seccomp does not take");
    }
  }
}

}  // namespace shunt::testing
