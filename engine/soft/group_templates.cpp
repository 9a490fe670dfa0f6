// Groups of accesses that share one look into the TLB (access_group.hpp). What they do stands in the block twice: in
// its place, for when all of it lies in one page that may be accessed so, and behind the block as single accesses,
// which know about misses, faults and page edges.
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {

Translator::Flow Translator::emit_group(const AccessGroup& group) {
  ColdGroup cold{0, window_.peek(), group.instructions, fpu_checked_};
  if (group.base == AccessGroup::kAbsolute) {
    out_->mov(hR10, static_cast<std::uint64_t>(group.low));
  } else {
    out_->lea(hR10, read_gpr(group.base, hR10), static_cast<std::int32_t>(group.low));
  }
  cold.jump = emit_probe(group.bytes, group.write);
  Flow flow = Flow::Continue;
  for (std::size_t i = 0; i < group.instructions; ++i) {
    const Instruction& instruction = *window_.peek();
    place_ = group.place[i];
    begin(instruction);
    flow = emit(instruction);
    length_ += instruction.info.length;
    window_.pop();
  }
  place_.reset();
  instructions_ += static_cast<unsigned>(group.instructions);
  if (flow == Flow::Continue) cold.back = out_->position();
  cold_groups_.push_back(cold);
  return flow;
}

void Translator::emit_cold_groups() {
  for (const ColdGroup& group : cold_groups_) {
    out_->bind(group.jump);
    fpu_checked_ = group.fpu_checked;
    for (std::size_t i = 0; i < group.instructions; ++i) {
      begin(group.first[i]);
      (void)emit(group.first[i]);
    }
    if (group.back) out_->bind(out_->jump(), *group.back);
  }
}

}  // namespace vm_platform::soft
