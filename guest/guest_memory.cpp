#include "guest/guest_memory.hpp"

#include <algorithm>

namespace vm_platform {

Result<GuestMemory> GuestMemory::create(std::uint64_t size) {
  if (size < kMiB || size > (std::uint64_t{1} << 46)) {
    return fail(VmError(ErrorCode::InvalidArgument, "create guest memory", std::to_string(size) + " bytes",
                        "outside of 1 MiB to 64 TiB")
                    .with_hint("give a size such as 512M or 4G"));
  }
  auto mapping = MappedMemory::create_shared(size, "guest-memory");
  if (!mapping) return fail(mapping.error());
  GuestMemory memory;
  memory.memory_ = std::move(*mapping);
  const std::uint64_t total = memory.memory_.size(), low = std::min(total, kLowRamEnd);
  memory.regions_[memory.region_count_++] = {Gpa(0), low, memory.memory_.data()};
  if (total > low)
    memory.regions_[memory.region_count_++] = {Gpa(kHighRamStart), total - low, memory.memory_.data() + low};
  return memory;
}

bool GuestMemory::read(Gpa address, std::span<std::byte> out) const noexcept {
  const std::byte* source = host(address, out.size());
  if (source == nullptr) return false;
  std::memcpy(out.data(), source, out.size());
  return true;
}

bool GuestMemory::write(Gpa address, std::span<const std::byte> in) const {
  std::byte* target = host(address, in.size());
  if (target == nullptr) return false;
  std::memcpy(target, in.data(), in.size());
  if (observer_ != nullptr) observer_->guest_memory_written(address, in.size());
  return true;
}

}  // namespace vm_platform
