#include "os/jit_host.hpp"

#include <windows.h>

#include <array>
#include <cstring>

#include "os/mapping.hpp"
#include "os/windows/failure.hpp"
#include "os/windows/handle.hpp"

namespace vm_platform {
namespace jit_host {
namespace {

/// The free address closest to `near_address` that has room; a hint only.
std::byte* free_address_near(const void* near_address, std::uint64_t size) {
  if (near_address == nullptr) return nullptr;
  const auto target = reinterpret_cast<std::uintptr_t>(near_address);
  const std::uint64_t reach = (1ULL << 31) - size - kMiB;
  std::uint64_t at = target > reach ? target - reach : 64 * kKiB;
  std::uint64_t best = 0, best_distance = UINT64_MAX;
  MEMORY_BASIC_INFORMATION region{};
  while (at < target + reach && ::VirtualQuery(reinterpret_cast<void*>(at), &region, sizeof region) != 0) {
    const auto begin = reinterpret_cast<std::uintptr_t>(region.BaseAddress);
    const std::uint64_t end = begin + region.RegionSize;
    if (region.State == MEM_FREE && end - begin >= size + 64 * kKiB) {
      // The end of a gap below the target, the beginning of one above.
      const std::uint64_t candidate =
          end <= target ? round_down(end - size, 64 * kKiB) : round_up(std::max(at, begin), 64 * kKiB);
      const std::uint64_t distance = candidate > target ? candidate - target : target - candidate;
      if (candidate >= begin && candidate + size <= end && distance < best_distance) {
        best = candidate;
        best_distance = distance;
      }
    }
    at = end;
  }
  return reinterpret_cast<std::byte*>(best);
}

VmError denied(unsigned long error, const char* call, const std::string& subject) {
  auto failure = memory_failure(error, call, subject);
  if (error != ERROR_ACCESS_DENIED) return failure;
  return std::move(failure)
      .with_detail(make_error_code(MemoryError::ExecutableDenied))
      .with_hint("turn Arbitrary Code Guard off for this program");
}

}  // namespace

Result<Pages> map(JitMode mode, std::uint64_t size, const void* near_address, const std::string& name) {
  const std::string subject = describe_range(name, size);
  std::byte* hint = free_address_near(near_address, size);
  if (mode == JitMode::ProtectionSwitch) {
    void* pages = hint == nullptr ? nullptr : ::VirtualAlloc(hint, size, MEM_RESERVE | MEM_COMMIT, PAGE_EXECUTE_READ);
    if (pages == nullptr) pages = ::VirtualAlloc(nullptr, size, MEM_RESERVE | MEM_COMMIT, PAGE_EXECUTE_READ);
    if (pages == nullptr) return fail(denied(::GetLastError(), "VirtualAlloc", subject));
    return Pages{static_cast<std::byte*>(pages), static_cast<std::byte*>(pages)};
  }
  // The section allows everything; each view of it only half.
  const Handle section(::CreateFileMappingW(INVALID_HANDLE_VALUE, nullptr, PAGE_EXECUTE_READWRITE | SEC_COMMIT,
                                            static_cast<DWORD>(size >> 32), static_cast<DWORD>(size), nullptr));
  if (!section) return fail(denied(::GetLastError(), "CreateFileMapping", subject));
  void* executable = nullptr;
  if (hint != nullptr)
    executable = ::MapViewOfFileEx(section.get(), FILE_MAP_READ | FILE_MAP_EXECUTE, 0, 0, size, hint);
  if (executable == nullptr) executable = ::MapViewOfFile(section.get(), FILE_MAP_READ | FILE_MAP_EXECUTE, 0, 0, size);
  if (executable == nullptr) return fail(denied(::GetLastError(), "MapViewOfFile", subject));
  void* writable = ::MapViewOfFile(section.get(), FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, size);
  if (writable == nullptr) {
    const unsigned long error = ::GetLastError();
    ::UnmapViewOfFile(executable);
    return fail(denied(error, "MapViewOfFile", subject));
  }
  return Pages{static_cast<std::byte*>(writable), static_cast<std::byte*>(executable)};
}

void unmap(const Pages& pages, std::uint64_t /*size*/) noexcept {
  if (pages.writable == pages.executable) {
    ::VirtualFree(pages.executable, 0, MEM_RELEASE);
  } else {
    ::UnmapViewOfFile(pages.executable);
    ::UnmapViewOfFile(pages.writable);
  }
}

Result<void> make_writable(std::byte* pages, std::uint64_t size) {
  unsigned long old = 0;
  if (::VirtualProtect(pages, size, PAGE_READWRITE, &old) != 0) return {};
  return fail(memory_failure(::GetLastError(), "VirtualProtect rw-", describe_range("code", size, pages)));
}

Result<void> make_executable(std::byte* pages, std::uint64_t size) {
  unsigned long old = 0;
  if (::VirtualProtect(pages, size, PAGE_EXECUTE_READ, &old) != 0) return {};
  return fail(denied(::GetLastError(), "VirtualProtect r-x", describe_range("code", size, pages)));
}

const std::uint64_t Unwind::kDescriptionSize = 16;

namespace {

class FunctionTable : public Unwind {
 public:
  FunctionTable(const JitMemory& memory, JitBlock block, JitBlock description) {
    entry_.BeginAddress = static_cast<DWORD>(block.offset);
    entry_.EndAddress = static_cast<DWORD>(block.offset + block.size);
    entry_.UnwindData = static_cast<DWORD>(description.offset);
    known_ = ::RtlAddFunctionTable(&entry_, 1, reinterpret_cast<DWORD64>(memory.executable())) != 0;
  }
  FunctionTable(const FunctionTable&) = delete;
  FunctionTable& operator=(const FunctionTable&) = delete;
  ~FunctionTable() override {
    if (known_) ::RtlDeleteFunctionTable(&entry_);
  }
  [[nodiscard]] bool known() const { return known_; }

 private:
  RUNTIME_FUNCTION entry_{};
  bool known_ = false;
};

}  // namespace

Result<std::unique_ptr<Unwind>> Unwind::create(const JitMemory& memory, JitBlock block, JitFrame frame,
                                               JitBlock description) {
  // UNWIND_INFO, version 1 (x64 exception handling): size of the prologue, number of codes, frame register; then codes
  // {offset, operation | info << 4}, last instruction first: UWOP_SET_FPREG 3, UWOP_PUSH_NONVOL 0 of rbp (5).
  std::array<std::uint8_t, 8> info = {1, 0, 0, 0, 0, 0, 0, 0};
  if (frame == JitFrame::FramePointer) info = {1, 4, 2, 5, 4, 3, 1, 0x50};
  if (auto done = memory.store(description.offset, std::as_bytes(std::span(info))); !done) return fail(done.error());
  auto table = std::make_unique<FunctionTable>(memory, block, description);
  if (!table->known()) return fail(VmError::from_last_error(::GetLastError(), "RtlAddFunctionTable", "generated code"));
  return table;
}

}  // namespace jit_host

void flush_instruction_cache(const void* executable, std::uint64_t size, const void* /*written*/) noexcept {
  ::FlushInstructionCache(::GetCurrentProcess(), executable, size);
}

Result<void> synchronize_cores() noexcept {
  ::FlushProcessWriteBuffers();
  return {};
}

}  // namespace vm_platform
