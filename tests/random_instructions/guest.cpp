#include "tests/random_instructions/guest.hpp"

#include <stdexcept>

#include "engine/engine.hpp"

namespace vm_platform::random_instructions {
namespace {

// Guest-physical layout. The first 2 MiB are mapped one to one, for the supervisor alone.
constexpr std::uint64_t kGdt = 0x1000, kIdt = 0x2000, kTss = 0x3000, kStubs = 0x4000, kStackTop = 0x8000,
                        kTables = 0x10000, kCode = 0x200000, kData = 0x300000;
constexpr std::uint64_t kP = 1, kW = 2, kU = 4, kPs = 0x80;
constexpr std::uint64_t kOsxsave = 0x40000;
constexpr std::uint16_t kReportPort = 0x80;

[[noreturn]] void give_up(const std::string& what) { throw std::runtime_error(what); }

/// No interrupts: a sequence is over before one would come.
class NoInterrupts : public CpuInterruptController {
 public:
  bool has_interrupt() noexcept override { return false; }
  std::optional<std::uint8_t> acknowledge() noexcept override { return {}; }
  std::uint8_t task_priority() noexcept override { return 0; }
  void set_task_priority(std::uint8_t) noexcept override {}
  MsrAccess read_msr(std::uint32_t, std::uint64_t&) noexcept override { return MsrAccess::NotMine; }
  MsrAccess write_msr(std::uint32_t, std::uint64_t) noexcept override { return MsrAccess::NotMine; }
};

/// The port that an exception handler writes to when the sequence is over.
class Report : public PortDevice {
 public:
  std::uint32_t port_read(std::uint16_t, unsigned) override { return ~0U; }
  void port_write(std::uint16_t, unsigned, std::uint32_t) override {
    reported = true;
    vcpu->kick();
  }
  Vcpu* vcpu = nullptr;
  bool reported = false;
};

}  // namespace

struct GuestCpu::Machine {
  GuestMemory memory;
  PortBus ports;
  MmioBus mmio;
  NoInterrupts interrupts;
  Report report;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Vcpu> vcpu;
  CpuState base;

  explicit Machine(GuestMemory m) : memory(std::move(m)) {}
  template <typename T>
  void put(std::uint64_t physical, T value) {
    if (!memory.write(Gpa(physical), std::as_bytes(std::span(&value, 1)))) give_up("guest memory is too small");
  }
  std::uint64_t quad(std::uint64_t physical) const {
    std::uint64_t value;
    if (!memory.read(Gpa(physical), std::as_writable_bytes(std::span(&value, 1)))) give_up("guest memory is too small");
    return value;
  }

  void build_tables() {
    // PML4 → PDPT → PD, then one table of 4 KiB pages for each 2 MiB used.
    const std::uint64_t pml4 = kTables, pdpt = kTables + 0x1000, pd = kTables + 0x2000, code = kTables + 0x3000,
                        data = kTables + 0x4000;
    static_assert(kCodeBase % 0x200000 == 0 && kCodeBase >> 30 == 0 && kDataBase >> 21 == kCodeBase >> 21);
    put(pml4, pdpt | kP | kW | kU);
    put(pdpt, pd | kP | kW | kU);
    put(pd, std::uint64_t{0} | kP | kW | kPs);
    put(pd + 8 * (kCodeBase >> 21), code | kP | kW | kU);
    for (std::uint64_t i = 0; i < kCodePages; ++i) put(code + 8 * i, (kCode + 4096 * i) | kP | kW | kU);
    const std::uint64_t first = (kDataBase - kCodeBase) / 4096;
    for (std::uint64_t i = 0; i < kDataPages.size(); ++i)
      if (kDataPages[i] != PageKind::Hole)
        put(code + 8 * (first + i), (kData + 4096 * i) | kP | kU | (kDataPages[i] == PageKind::ReadWrite ? kW : 0));
    (void)data;

    put(kGdt + 8, std::uint64_t{0x00af9b000000ffff});     // 08h: kernel code
    put(kGdt + 0x10, std::uint64_t{0x00cf93000000ffff});  // 10h: kernel data
    put(kGdt + 0x18, std::uint64_t{0x00cff3000000ffff});  // 1bh: user data
    put(kGdt + 0x20, std::uint64_t{0x00affb000000ffff});  // 23h: user code
    put(kTss + 4, kStackTop);
    for (std::uint64_t v = 0; v < 32; ++v) {
      const std::uint64_t stub = kStubs + 16 * v;
      const bool has_code = v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21;
      // [push 0]; push v; out 80h, al; wait
      std::array<std::uint8_t, 8> bytes = {0x6a, 0, 0x6a, static_cast<std::uint8_t>(v), 0xe6, kReportPort, 0xeb, 0xfe};
      put(stub, bytes);
      const std::uint64_t entry = has_code ? stub + 2 : stub;
      const std::uint64_t dpl = v == 3 ? 3 : 0;
      put(kIdt + 16 * v, (entry & 0xffff) | 0x08 << 16 | (0x8e | dpl << 5) << 40 | (entry >> 16) << 48);
      put(kIdt + 16 * v + 8, std::uint64_t{0});
    }
  }

  void build_state() {
    base.segments[kCs] = {0, 0xffffffff, 0x23, 0xa0fb};
    for (const SegmentRegister s : {kSs, kDs, kEs, kFs, kGs}) base.segments[s] = {0, 0xffffffff, 0x1b, 0xc0f3};
    base.segments[kGs].base = kGsBase;
    base.ldtr = {0, 0, 0, 0x82 | Segment::kUnusable};
    base.tr = {kTss, 0x67, 0x40, 0x8b};
    base.gdtr = {kGdt, 0x2f};
    base.idtr = {kIdt, 32 * 16 - 1};
    base.cr0 = 0x80010033;
    base.cr3 = kTables;
    base.cr4 = 0x620 | kOsxsave;  // PAE OSFXSR OSXMMEXCPT
    base.efer = 0xd01;
    base.xcr0 = 7;
  }
};

GuestCpu::GuestCpu(HostCpuUse host_cpu) {
  auto memory = GuestMemory::create(8 * kMiB);
  if (!memory) give_up(memory.error().message());
  machine_ = std::make_unique<Machine>(std::move(*memory));
  Machine& m = *machine_;
  if (auto attached = m.ports.attach(kReportPort, 1, m.report, "report"); !attached)
    give_up(attached.error().message());
  m.build_tables();
  m.build_state();
  if (host_cpu == HostCpuUse::Baseline) m.base.cr4 &= ~kOsxsave, m.base.xcr0 = 1;
  auto engine =
      create_soft_engine({&m.memory, &m.ports, &m.mmio, {host_tsc_frequency(), 0}}, {.cpus = 1, .host_cpu = host_cpu});
  if (!engine) give_up(engine.error().message());
  m.engine = std::move(*engine);
  auto vcpu = m.engine->create_vcpu(0, m.interrupts);
  if (!vcpu) give_up(vcpu.error().message());
  m.vcpu = std::move(*vcpu);
  m.report.vcpu = m.vcpu.get();
}
GuestCpu::~GuestCpu() = default;

Outcome GuestCpu::run(const Sequence& sequence) {
  Machine& m = *machine_;
  const auto write = [&](std::uint64_t physical, std::span<const std::uint8_t> bytes) {
    if (!m.memory.write(Gpa(physical), std::as_bytes(bytes))) give_up("guest memory is too small");
  };
  static const std::vector<std::uint8_t> filler(kCodePages * 4096, 0xcc);
  write(kCode, filler);
  write(kCode + (sequence.initial.rip - kCodeBase), sequence.code);
  for (std::size_t i = 0; i < kDataPages.size(); ++i)
    if (kDataPages[i] != PageKind::Hole) write(kData + 4096 * i, std::span(&sequence.data[4096 * i], 4096));

  CpuState state = m.base;
  state.gpr = sequence.initial.gpr;
  state.rip = sequence.initial.rip;
  state.rflags = sequence.initial.rflags | 0x200;
  std::memcpy(state.xsave.data(), sequence.initial.xsave.data(), sequence.initial.xsave.size());
  if (auto set = m.vcpu->set_state(state); !set) give_up(set.error().message());
  m.report.reported = false;
  while (!m.report.reported) {
    const VcpuExit exit = m.vcpu->run();
    if (exit.kind == VcpuExit::Kind::TripleFault) give_up("triple fault");
    if (exit.kind == VcpuExit::Kind::Failed) give_up("engine failed: " + exit.error);
  }

  // On the handler's stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
  const CpuState after = m.vcpu->state();
  Outcome outcome;
  outcome.state.gpr = after.gpr;
  outcome.vector = m.quad(kStackTop - 56);
  outcome.error_code = m.quad(kStackTop - 48);
  outcome.state.rip = m.quad(kStackTop - 40);
  outcome.state.rflags = m.quad(kStackTop - 24);
  outcome.state.gpr[kRsp] = m.quad(kStackTop - 16);
  outcome.fault_address = after.cr2;
  std::memcpy(outcome.state.xsave.data(), after.xsave.data(), outcome.state.xsave.size());
  return outcome;
}

const std::uint8_t* GuestCpu::data_page(std::size_t index) const {
  return reinterpret_cast<const std::uint8_t*>(machine_->memory.host(Gpa(kData + 4096 * index), 4096));
}

}  // namespace vm_platform::random_instructions
