// A CPU of the software engine: the context plus what its generated code jumps through, and the run loop.
#pragma once

#include <atomic>
#include <bitset>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/soft/code_cache.hpp"
#include "engine/soft/cpu.hpp"
#include "engine/soft/entry.hpp"
#include "engine/soft/links.hpp"
#include "engine/soft/semantics.hpp"
#include "engine/soft/world.hpp"

namespace vm_platform::soft {

/// A write made to the bounce buffer in a checked block, to be made in guest memory when the instruction has ended.
struct PendingWrite {
  std::uint64_t linear = 0;
  std::uint32_t size = 0;
  const std::uint8_t* data = nullptr;
};

/// A page fault that counts only if the instruction does not object to its operand's alignment first, and what to put
/// back when it does not.
struct DeferredFault {
  GuestFault fault;
  std::uint64_t gpr[16], arithmetic_flags;
  std::uint8_t xsave[1024];
};

class SoftCpu final : public Cpu {
 public:
  SoftCpu(const EngineEnvironment& environment, const EngineOptions& options, CpuInterruptController& controller,
          CodeCache& cache, World& world, unsigned index);

  VcpuExit run();

  // Thread-safe.
  void request_poll() noexcept;
  void wake() noexcept;
  std::atomic<bool> kicked = false, nmi = false;
  /// INIT, and the start-up IPI that came after it or, without one, last: its vector in the low byte.
  std::atomic<unsigned> start_signals = 0;
  static constexpr unsigned kInit = 0x200, kStartup = 0x100;
  std::atomic<RunState> run_state = RunState::Running;

  Links links;
  World& world;
  std::optional<GuestFault> pending_fault;
  std::unique_ptr<DeferredFault> deferred_fault;
  PendingWrite pending_writes[3];
  unsigned pending_count = 0;

 private:
  enum class Next : std::uint8_t { Go, Return };
  /// Goes on by an instruction, a run of blocks, or an event. Throws TripleFault, and what is the host's fault.
  Next advance(VcpuExit& exit);
  Next handle_events(VcpuExit& exit);
  void sleep();
  void take_interrupt();
  /// Calls the guest's handler. Throws TripleFault.
  void deliver(const GuestFault& fault);
  void step();
  /// One instruction, with breakpoints and single-stepping. `stack_changed`: the one before it loaded SS.
  void step_checked(const Mode& mode, bool single_step, bool stack_changed);
  void run_block(Block& block);
  void after_block(const Mode& mode);
  Block& find_block(std::uint64_t rip, const Mode& mode);
  /// The same for the checked path: all of the instruction lies within the limit of CS.
  Block& find_checked_block(std::uint64_t rip, const Mode& mode);
  Block& translate(std::uint64_t linear, std::uint64_t rip, std::uint64_t cs_base, const Mode& mode);
  /// Code that is not in RAM, or goes on where there is none: one instruction, read by way of the bus, for the checked
  /// path. It is not kept, because it may read differently the next time.
  Block& translate_outside_ram(std::uint64_t linear, std::uint64_t rip, std::uint64_t cs_base, Mode mode);
  /// The linear address of the page behind this one's; they go round at 4 GiB outside of 64-bit mode.
  [[nodiscard]] std::uint64_t page_after(std::uint64_t linear) const;
  const TlbEntry& fetch_page(std::uint64_t linear);
  void fetch_bytes(std::uint64_t linear, std::span<std::uint8_t> out);
  void make_room_for_code();
  /// Whether RIP may be that: canonical, or within the limit of CS.
  [[nodiscard]] bool can_fetch(std::uint64_t rip) const;
  std::uint64_t fetch_address(std::uint64_t rip) const;
  /// Where the one instruction of a checked block ends, as far as it is fetched: it must lie within the limit of CS.
  [[nodiscard]] std::uint64_t last_byte(const Block& checked);
  void on_link(std::uint32_t number, const Mode& mode);
  /// A target that cannot be is the jump's own fault, before which it has changed nothing (Intel SDM vol. 2, JMP,
  /// CALL).
  void check_jump(const Block& from, std::uint64_t target);
  void on_indirect(const Mode& mode);
  void on_execute(std::uint32_t number);
  void on_native_fault();
  std::uint32_t offset_of_fault(const Block& block, std::uint64_t host_pc);
  void raise_if_unusable(const Instruction& instruction);
  void commit_writes();
  [[nodiscard]] bool page_is_global(std::uint64_t at) const;
  /// Whether all pages the block lies in are mapped by global entries, as far as the TLB knows.
  [[nodiscard]] bool is_global(const Block& block) const;
  [[nodiscard]] std::uint64_t interrupted_rip() const;
  [[nodiscard]] std::uint64_t rip_of(std::uint64_t host_pc, std::uint32_t offset) const;

  bool retry_checked_ = false;
  bool stack_changed_ = false;  ///< By the last instruction: MOV SS, POP SS.
  bool check_interrupts_ = true;
  std::uint64_t stack_before_ = 0, count_before_ = 0;  ///< RSP and RCX at the beginning of a checked block.
  std::mutex sleep_mutex_;
  std::condition_variable sleep_condition_;
  bool sleeping_ = false;
};

/// Invalidates translated code in [physical, physical + size) on all CPUs.
void invalidate_code(World& world, CodeCache& cache, std::uint64_t physical, std::uint64_t size);

}  // namespace vm_platform::soft
