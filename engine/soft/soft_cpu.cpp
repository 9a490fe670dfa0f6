#include "engine/soft/soft_cpu.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "engine/soft/classify.hpp"
#include "engine/soft/mmu.hpp"
#include "engine/soft/native_fault.hpp"
#include "engine/soft/page_walk.hpp"
#include "engine/soft/semantics/breakpoints.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/xsave_image.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {

SoftCpu::SoftCpu(const EngineEnvironment& env, const EngineOptions& opts, CpuInterruptController& interrupts,
                 CodeCache& cache, World& shared, unsigned number)
    : Cpu(env, opts, interrupts, cache, cache.pages, number),
      links(reinterpret_cast<std::byte*>(static_cast<CpuContext*>(this)), vmp_soft_thunk_table[kThunkLink]),
      world(shared) {
  prepare_context(*this);
  links.add_slots(0, cache.exit_count());
}

// ---- asked for by other threads -----------------------------------------------------------------------------------

void SoftCpu::request_poll() noexcept { __atomic_store_n(&poll, 1, __ATOMIC_SEQ_CST); }

void SoftCpu::wake() noexcept {
  request_poll();
  const std::lock_guard lock(sleep_mutex_);
  if (sleeping_) sleep_condition_.notify_all();
}

void SoftCpu::sleep() {
  ++counters.halts;
  world.leave();
  {
    std::unique_lock lock(sleep_mutex_);
    sleeping_ = true;
    sleep_condition_.wait(lock, [this] { return __atomic_load_n(&poll, __ATOMIC_SEQ_CST) != 0; });
    sleeping_ = false;
  }
  world.enter();
}

// ---- the run loop -------------------------------------------------------------------------------------------------

VcpuExit SoftCpu::run() {
  const GsBinding binding(*this);
  const NativeFaultScope native_faults(*this);
  world.enter();
  VcpuExit exit;
  try {
    while (advance(exit) == Next::Go) {
    }
  } catch (const TripleFault&) {
    exit = {VcpuExit::Kind::TripleFault, {}};
  } catch (const VmError& error) {
    exit = {VcpuExit::Kind::Failed, error.message()};
  } catch (const std::bad_alloc&) {
    exit = {VcpuExit::Kind::Failed, "run a vCPU: no memory left on this host"};
  }
  world.leave();
  return exit;
}

SoftCpu::Next SoftCpu::advance(VcpuExit& exit) {
  if (__atomic_load_n(&poll, __ATOMIC_RELAXED) != 0 && handle_events(exit) == Next::Return) return Next::Return;
  if (run_state != RunState::Running) {
    sleep();
    return Next::Go;
  }
  std::optional<GuestFault> raised;  // delivered outside of the handler, which does not nest
  try {
    if (halted) {
      const bool wake_up = (system_flags & rflags::kInterrupt) != 0 && controller.has_interrupt();
      if (!wake_up && !(nmi && !nmi_masked)) {
        sleep();
        return Next::Go;
      }
      halted = false;
      check_interrupts_ = true;
    }
    if (check_interrupts_ && !interrupt_shadow) take_interrupt();
    step();
  } catch (const GuestFault& fault) {
    raised = fault;
  }
  if (raised) deliver(*raised);
  return Next::Go;
}

void SoftCpu::deliver(const GuestFault& fault) {
  pending_count = 0;
  debug_hits = 0;  // of an instruction that did not happen
  ++counters.exceptions;
  deliver_exception(*this, fault);
  check_interrupts_ = true;
}

SoftCpu::Next SoftCpu::handle_events(VcpuExit& exit) {
  __atomic_store_n(&poll, 0, __ATOMIC_SEQ_CST);
  world.safepoint();
  check_interrupts_ = true;
  if (world.memory_guard->lost()) {
    exit = {VcpuExit::Kind::Failed, world.memory_guard->error().message()};
    return Next::Return;
  }
  if (kicked.exchange(false)) {
    // Whatever else was asked for is looked at when run() is called again.
    __atomic_store_n(&poll, 1, __ATOMIC_SEQ_CST);
    exit = {VcpuExit::Kind::Kicked, {}};
    return Next::Return;
  }
  const unsigned signals = start_signals.exchange(0);
  if ((signals & kInit) != 0) {
    init_reset();
    run_state = RunState::WaitForStartup;
    halted = false;
  }
  // Only a CPU that waits takes one (Intel SDM 3, 9.4). The second of the two that systems send must not be kept: it
  // would start the CPU after the machine's next reset.
  if ((signals & kStartup) != 0 && run_state == RunState::WaitForStartup) {
    const unsigned vector = signals & 0xff;
    segments[kCs].selector = static_cast<std::uint16_t>(vector << 8);
    segments[kCs].base = std::uint64_t{vector} << 12;
    rip = 0;
    run_state = RunState::Running;
  }
  return Next::Go;
}

void SoftCpu::take_interrupt() {
  check_interrupts_ = false;
  if (nmi && !nmi_masked) {
    nmi = false;
    halted = false;
    deliver_interrupt(*this, static_cast<std::uint8_t>(Vector::Nmi), true);
    check_interrupts_ = true;
    return;
  }
  interrupt_waiting = 0;
  if (!controller.has_interrupt()) return;
  if ((system_flags & rflags::kInterrupt) == 0) {
    interrupt_waiting = 1;
    return;
  }
  if (const auto vector = controller.acknowledge()) {
    ++counters.interrupts;
    deliver_interrupt(*this, *vector);
    check_interrupts_ = true;
  }
}

bool SoftCpu::can_fetch(std::uint64_t at) const {
  return in_64bit() ? is_canonical(*this, at) : at <= segments[kCs].limit;
}

std::uint64_t SoftCpu::fetch_address(std::uint64_t at) const {
  if (!can_fetch(at)) raise(Vector::GeneralProtection, 0);
  return in_64bit() ? at : (segments[kCs].base + at) & 0xffffffff;
}

std::uint64_t SoftCpu::last_byte(const Block& checked) {
  // Of bytes that are no instruction the CPU has not fetched more than show that.
  const auto& described = checked.exits == 0 ? nullptr : code.exit(checked.first_exit).instruction;
  if (described && described->info.mnemonic == ZYDIS_MNEMONIC_INVALID) return checked.rip;
  return checked.rip + checked.guest_size - 1;
}

void SoftCpu::step() {
  Mode mode = current_mode(*this);
  const bool single_step = (system_flags & rflags::kTrap) != 0;
  if (interrupt_shadow || retry_checked_) mode.checked = true;
  interrupt_shadow = false;
  retry_checked_ = false;
  const bool stack_changed = std::exchange(stack_changed_, false);
  if (!mode.checked) {
    links.use_mode(mode);
    if (const std::uint64_t known = links.find_jump(rip, mode)) {
      vmp_soft_enter(reinterpret_cast<const std::byte*>(known));
      after_block(mode);
      return;
    }
  }
  if (mode.checked) {
    step_checked(mode, single_step, stack_changed);
    return;
  }
  Block& block = find_block(rip, mode);
  if (block.mode.checked) {  // outside of RAM
    run_block(block);
    return;
  }
  vmp_soft_enter(code.executable(block));
  after_block(mode);
}

void SoftCpu::step_checked(const Mode& mode, bool single_step, bool stack_changed) {
  const std::uint64_t resume = system_flags & rflags::kResume, at = rip;
  // After MOV SS and POP SS nothing comes between them and the next instruction (Intel SDM vol. 3, 6.8.3).
  if (has_breakpoints(*this) && resume == 0 && !stack_changed) {
    if (const std::uint64_t hits = instruction_breakpoints(*this, fetch_address(at)))
      throw GuestFault{Vector::Debug, {}, 0, hits};
  }
  // RF holds for one instruction; one that is not done yet (a long repeat) keeps it.
  system_flags &= ~rflags::kResume;
  single_step_done = false;
  run_block(find_checked_block(at, mode));
  // STI in translated code opens its window behind the next instruction, which may have been this one.
  if (interrupt_waiting != 0) check_interrupts_ = true;
  if (rip == at) system_flags |= resume;
  if (stack_changed_) return;  // traps wait until after the instruction that follows
  const std::uint64_t traps = debug_hits | (single_step && !single_step_done ? 1U << 14 : 0);
  debug_hits = 0;
  if (traps != 0) throw GuestFault{Vector::Debug, {}, 0, traps};
}

Block& SoftCpu::find_checked_block(std::uint64_t at, const Mode& mode) {
  Block& block = find_block(at, mode);
  if (!in_64bit() && last_byte(block) > segments[kCs].limit) raise(Vector::GeneralProtection, 0);
  return block;
}

void SoftCpu::run_block(Block& block) {
  const Mode mode = block.mode;
  stack_before_ = gpr[kRsp], count_before_ = gpr[kRcx];
  if (!block.locked || alone) {
    vmp_soft_enter(code.executable(block));
    after_block(mode);
    return;
  }
  Block* current = &block;
  for (;;) {
    const std::uint64_t generation = code.generation();
    {
      const World::Lock lock(world);
      if (code.generation() == generation) {
        const World::Stop stop(world);
        vmp_soft_enter(code.executable(*current));
        const auto reason = static_cast<ExitReason>(exit_reason);
        if (reason != ExitReason::NativeFault && reason != ExitReason::AccessFault && !deferred_fault) commit_writes();
        break;
      }
    }
    current = &find_checked_block(rip, mode);  // cleared while this CPU waited
  }
  after_block(mode);
}

void SoftCpu::after_block(const Mode& mode) {
  ++counters.exits;
  const auto reason = static_cast<ExitReason>(exit_reason);
  if (deferred_fault) {
    const auto deferred = std::move(deferred_fault);
    // Only the alignment is an objection; what the bounce buffer holds is not the operand, so anything else is not one.
    constexpr std::uint64_t kGeneralProtection = 13;
    if (reason != ExitReason::NativeFault || scratch[12] != kGeneralProtection) {
      std::memcpy(gpr, deferred->gpr, sizeof gpr);
      arithmetic_flags = deferred->arithmetic_flags;
      std::memcpy(xsave, deferred->xsave, sizeof xsave);
      throw deferred->fault;
    }
  }
  switch (reason) {
    case ExitReason::Link: on_link(static_cast<std::uint32_t>(exit_value), mode); return;
    case ExitReason::Indirect: on_indirect(mode); return;
    case ExitReason::Execute: on_execute(static_cast<std::uint32_t>(exit_value)); return;
    case ExitReason::Poll:
      rip = interrupted_rip();
      check_interrupts_ = true;
      return;
    case ExitReason::Checked:
      rip = interrupted_rip();
      retry_checked_ = true;
      return;
    case ExitReason::PageFault:
      rip = interrupted_rip();
      deliver({Vector::PageFault, fault_error, fault_address});  // not thrown: there are many
      return;
    case ExitReason::NativeFault:
      pending_count = 0;
      on_native_fault();
      return;
    case ExitReason::AccessFault: {
      // Checked blocks begin with the instruction, so rip is still its address.
      pending_count = 0;
      const GuestFault fault = *pending_fault;
      pending_fault.reset();
      throw fault;
    }
  }
  throw VmError(ErrorCode::Status, "run generated code", "exit " + std::to_string(exit_reason), "unknown");
}

/// After an exit whose thunk was called with access info: where the instruction that asked stands.
std::uint64_t SoftCpu::interrupted_rip() const {
  return rip_of(exit_value, static_cast<std::uint32_t>(scratch[8]) >> kInfoRipShift);
}

std::uint64_t SoftCpu::rip_of(std::uint64_t host_pc, std::uint32_t offset) const {
  const Block* block = code.block_at(host_pc - 1);  // a return address: it may be the first byte after the block
  if (block == nullptr) throw VmError(ErrorCode::Status, "find the block of", "a host address", "there is none");
  return block->rip + offset;
}

void SoftCpu::on_link(std::uint32_t number, const Mode& mode) {
  // What is needed of the exit is read first: the cache may be cleared by another CPU while this one waits to write to
  // code, by itself to make room for the target, and by another CPU again before the lock is taken.
  const std::uint64_t generation = code.generation();
  Exit& exit = code.exit(number);
  const bool leads_on = !mode.checked && exit.kind != Exit::Kind::Checked;
  const Block* from = exit.from;
  const std::uint64_t next = exit.target_rip;
  if (mode.checked) check_jump(*from, next);
  commit_writes();
  rip = next;
  if (!leads_on) return;
  Block& target = find_block(rip, mode);
  const World::Lock lock(world);
  if (code.generation() != generation || !from->valid || !target.valid || !target.kept) return;
  // A patched jump is for all CPUs and stays when page tables change, so both blocks must be in one page of memory.
  // They are not where this CPU's TLB forgot the page meanwhile and its table says another one, which the guest may not
  // rely on before it has flushed.
  const bool same_page = !target.second_page && target.physical >> 12 == from->physical >> 12;
  if (exit.kind == Exit::Kind::SamePage && same_page) {
    if (exit.to != &target) code.link(number, target);
    return;
  }
  // Where the target is depends on this CPU's page tables: its page, or the page it goes on in, is another one.
  if (exit.to != &target) {
    // It is in the list already where address spaces take turns.
    if (exit.to == nullptr || std::ranges::find(target.incoming, number) == target.incoming.end())
      target.incoming.push_back(number);
    exit.to = &target;
  }
  links.set_slot(number, reinterpret_cast<std::uint64_t>(code.executable(target)), target, is_global(target));
}

void SoftCpu::check_jump(const Block& from, std::uint64_t target) {
  const std::uint64_t end = from.rip + from.guest_size;
  if (target == (in_64bit() ? end : end & 0xffffffff) || can_fetch(target)) return;
  gpr[kRsp] = stack_before_;  // of CALL
  gpr[kRcx] = count_before_;  // of LOOP
  raise(Vector::GeneralProtection, 0);
}

void SoftCpu::on_indirect(const Mode& mode) {
  const auto info = static_cast<std::uint32_t>(scratch[8]);
  const std::uint64_t target = exit_value;
  const auto adjustment = static_cast<std::int32_t>(info << 14) >> 14;
  rip = rip_of(scratch[9], info >> kJumpInfoRipShift);
  (void)fetch_address(target);  // a target that cannot be is the jump's own fault
  commit_writes();
  std::uint64_t& stack = gpr[kRsp];
  const std::uint64_t moved = stack + static_cast<std::uint64_t>(static_cast<std::int64_t>(adjustment));
  stack = mode.stack_bytes == 8   ? moved
          : mode.stack_bytes == 4 ? moved & 0xffffffff
                                  : (stack & ~std::uint64_t{0xffff}) | (moved & 0xffff);
  rip = target;
  if (mode.checked) return;
  Block& block = find_block(rip, mode);
  if (!block.kept) return;
  links.set_jump(rip, mode, reinterpret_cast<std::uint64_t>(code.executable(block)), block, is_global(block));
}

void SoftCpu::on_execute(std::uint32_t number) {
  // All that is needed of the exit is read before anything is written, and the instruction held on to: it may be
  // overwritten by what came before it, by itself, or by another CPU.
  const Exit& exit = code.exit(number);
  const bool retry = exit.kind == Exit::Kind::Retry;
  const std::uint64_t at = exit.target_rip;
  const std::shared_ptr<const Instruction> held = exit.instruction;
  commit_writes();
  rip = at;
  if (retry) {
    retry_checked_ = true;
    return;
  }
  const Instruction& instruction = *held;
  if (instruction.info.mnemonic == ZYDIS_MNEMONIC_INVALID) {
    if (instruction.info.length > 15) raise(Vector::GeneralProtection, 0);
    raise(Vector::InvalidOpcode);
  }
  raise_if_unusable(instruction);
  if (instruction.info.mnemonic == ZYDIS_MNEMONIC_FWAIT) {  // not translated, though usable: CR0.EM or TS is set
    if (xsave::has_pending_x87_error(*this)) raise(Vector::X87Error);
    rip = instruction.next_rip();
    return;
  }
  execute(*this, instruction);
  stack_changed_ = interrupt_shadow && instruction.info.mnemonic != ZYDIS_MNEMONIC_STI;
  check_interrupts_ = true;
}

void SoftCpu::raise_if_unusable(const Instruction& instruction) {
  const bool emulated = (cr0 & cr0::kEmulation) != 0, switched = (cr0 & cr0::kTaskSwitched) != 0;
  switch (fpu_use_of(instruction)) {
    case FpuUse::None: return;
    case FpuUse::Vex:
      if (real_mode() || virtual_8086()) raise(Vector::InvalidOpcode);
      return;
    case FpuUse::X87:
      if (emulated || switched) raise(Vector::DeviceNotAvailable);
      return;
    case FpuUse::Wait:
      if (switched && (cr0 & cr0::kMonitorCoprocessor) != 0) raise(Vector::DeviceNotAvailable);
      return;
    case FpuUse::Mmx:
      if (emulated) raise(Vector::InvalidOpcode);
      if (switched) raise(Vector::DeviceNotAvailable);
      return;
    case FpuUse::Sse:
      if (emulated || (cr4 & cr4::kOsfxsr) == 0) raise(Vector::InvalidOpcode);
      if (switched) raise(Vector::DeviceNotAvailable);
      return;
    case FpuUse::Avx:
      if ((cr4 & cr4::kOsxsave) == 0 || (xcr0 & 6) != 6) raise(Vector::InvalidOpcode);
      if (switched) raise(Vector::DeviceNotAvailable);
      return;
  }
}

void SoftCpu::on_native_fault() {
  const std::uint64_t host_pc = exit_value, trap = scratch[12];
  Block* block = code.block_at(host_pc);
  if (block == nullptr) throw VmError(ErrorCode::Status, "handle a host exception", "outside of every block", "");
  rip = block->rip + (block->mode.checked ? 0 : offset_of_fault(*block, host_pc));
  switch (trap) {
    case 0: raise(Vector::DivideError);
    case 6: raise(Vector::InvalidOpcode);
    case 12: raise(Vector::StackFault, 0);
    case 13: raise(Vector::GeneralProtection, 0);
    case 16: raise(Vector::X87Error);
    case 17: raise(Vector::AlignmentCheck, 0);
    case 19: raise((cr4 & cr4::kOsxmmexcpt) != 0 ? Vector::SimdError : Vector::InvalidOpcode);
    default: break;
  }
  throw VmError(ErrorCode::Status, "handle a host exception", "number " + std::to_string(trap),
                "generated code does not raise it");
}

std::uint32_t SoftCpu::offset_of_fault(const Block& block, std::uint64_t host_pc) {
  // The bytes are unchanged (else the block would have been removed), so translating them again leads to the place.
  const auto bytes_at = [this](std::uint64_t physical) {
    const std::uint64_t size = 4096 - (physical & 4095);
    return std::span(reinterpret_cast<const std::uint8_t*>(mmu.memory.host(Gpa(physical), size)), size);
  };
  CodeBytes bytes{bytes_at(block.physical), {}, block.physical};
  if (block.second_page) bytes.second = bytes_at(*block.second_page), bytes.second_page = *block.second_page;
  Translator translator(code, host, block.mode, block.rip, block.cs_base, bytes);
  const auto offset = translator.locate(block, static_cast<std::uint32_t>(host_pc - code.code_begin()) - block.code);
  return offset.value_or(0);
}

}  // namespace vm_platform::soft
