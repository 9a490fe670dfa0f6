// GetWriteWatch, where the memory was made for it.
#include <windows.h>

#include <array>

#include "os/dirty_backend.hpp"

namespace vm_platform {

unsigned long current_process() noexcept { return ::GetCurrentProcessId(); }

namespace {

class WriteWatch : public DirtyTracker::Backend {
 public:
  explicit WriteWatch(MappedMemory& memory) : memory_(memory), addresses_(4096) {}
  [[nodiscard]] DirtyMethod method() const noexcept override { return DirtyMethod::WriteWatch; }

  Result<void> collect(DirtyPages& pages) override {
    // Asked for piece by piece: a call reports and resets only as many pages as it has room for.
    for (std::uint64_t at = 0; at < memory_.size(); at += addresses_.size() * page_size) {
      const std::uint64_t length = std::min<std::uint64_t>(addresses_.size() * page_size, memory_.size() - at);
      ULONG_PTR count = addresses_.size();
      DWORD granularity = 0;
      if (::GetWriteWatch(WRITE_WATCH_FLAG_RESET, memory_.data() + at, length, addresses_.data(), &count,
                          &granularity) != 0) {
        return fail(ErrorCode::Unsupported, "GetWriteWatch", std::to_string(memory_.size()) + " bytes",
                    "the memory was not created with write_watch");
      }
      for (ULONG_PTR i = 0; i < count; ++i) {
        const auto offset = static_cast<std::uint64_t>(static_cast<std::byte*>(addresses_[i]) - memory_.data());
        mark(pages, offset / page_size, granularity / page_size);
      }
    }
    return {};
  }

 private:
  MappedMemory& memory_;
  std::vector<void*> addresses_;
};

}  // namespace

Result<void> check_read_write(const MappedMemory& memory) {
  MEMORY_BASIC_INFORMATION region{};
  for (std::byte* at = memory.data(); at < memory.data() + memory.size(); at += region.RegionSize) {
    if (::VirtualQuery(at, &region, sizeof region) == 0)
      return fail(VmError::from_last_error(::GetLastError(), "VirtualQuery", "memory"));
    if (region.State != MEM_COMMIT || region.Protect != PAGE_READWRITE)
      return fail(ErrorCode::Unsupported, "track changes", "memory", "not all of it can be read and written");
  }
  return {};
}

std::span<const DirtyMethod> host_dirty_methods() noexcept {
  static constexpr std::array kMethods = {DirtyMethod::WriteWatch, DirtyMethod::ProtectFault};
  return kMethods;
}

Result<std::unique_ptr<DirtyTracker::Backend>> start_dirty_backend(DirtyMethod /*method*/, MappedMemory& memory) {
  auto made = std::make_unique<WriteWatch>(memory);
  made->size = memory.size();
  made->page_size = memory.page_size();
  DirtyPages scratch{.words = std::vector<std::uint64_t>((memory.size() / memory.page_size() + 63) / 64)};
  if (auto done = made->collect(scratch); !done) return fail(done.error());
  return made;
}

}  // namespace vm_platform
