// Memory that comes when it is touched: a fault handler that fills pages.
#include <cstdio>
#include <cstring>
#include <vm_platform/memory.hpp>
#include <vm_platform/signals.hpp>

using namespace vm_platform;

struct Lazy {
  MappedMemory memory;
  int filled = 0;
};

static FaultAction fill(Fault& fault, void* user) noexcept {
  auto& lazy = *static_cast<Lazy*>(user);
  const auto offset = round_down(fault.address() - reinterpret_cast<std::uintptr_t>(lazy.memory.data()), kPageSize);
  if (!lazy.memory.commit(offset, kPageSize)) return FaultAction::Pass;
  std::memset(lazy.memory.data() + offset, static_cast<int>(offset / kPageSize), kPageSize);
  ++lazy.filled;
  return FaultAction::Resume;
}

int main() {
  auto reserved = MappedMemory::create({.size = kMiB, .name = "lazy", .reserve_only = true});
  if (!reserved) return 1;
  Lazy lazy{.memory = std::move(*reserved)};
  const auto handler = register_sigsegv_handler(lazy.memory.bytes(), fill, &lazy);
  if (!handler) return std::fprintf(stderr, "%s\n", handler.error().message().c_str()), 1;
  const volatile std::byte* data = lazy.memory.data();
  const int value = static_cast<int>(data[7 * kPageSize + 123]);
  std::printf("page 7 holds %d; %d page came\n", value, lazy.filled);
  return value == 7 && lazy.filled == 1 ? 0 : 1;
}
