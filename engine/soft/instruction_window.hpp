// The instructions that follow a place in guest code, decoded once each and only as far as somebody looks.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "engine/soft/instruction.hpp"

namespace vm_platform::soft {

class InstructionWindow {
 public:
  /// `bytes` must outlive it; the first of them is at `rip`.
  InstructionWindow(std::span<const std::uint8_t> bytes, std::uint64_t rip, CodeSize size)
      : bytes_(bytes), rip_(rip), size_(size) {}

  /// The instruction `ahead` of the next one. Null: the bytes end or are no instruction there or before, or it is too
  /// far ahead.
  const Instruction* peek(std::size_t ahead = 0) {
    const std::size_t index = next_ + ahead;
    while (decoded_ <= index) {
      if (decoded_ == instructions_.size() || offset_ > bytes_.size() ||
          !decode(bytes_.data() + offset_, bytes_.size() - offset_, rip_ + offset_, size_, instructions_[decoded_]))
        return nullptr;
      offset_ += instructions_[decoded_++].info.length;
    }
    return &instructions_[index];
  }
  /// Goes on to the one after next. Instructions that were passed stay where they are.
  void pop() { ++next_; }

 private:
  std::span<const std::uint8_t> bytes_;
  std::uint64_t rip_;
  CodeSize size_;
  std::size_t next_ = 0, decoded_ = 0, offset_ = 0;
  std::array<Instruction, 64> instructions_;
};

}  // namespace vm_platform::soft
