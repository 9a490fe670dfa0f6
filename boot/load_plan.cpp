#include "boot/load_plan.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "guest/guest_memory.hpp"

namespace vm_platform::boot {

std::vector<std::byte> c_string(std::string_view text) {
  std::vector<std::byte> bytes(text.size() + 1);
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

std::string hex(std::uint64_t value) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::string megabytes(std::uint64_t bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f MiB", static_cast<double>(bytes) / static_cast<double>(kMiB));
  return text.data();
}

LoadPlan::LoadPlan(std::span<const BootMemoryRange> memory_map) {
  for (const BootMemoryRange& range : memory_map) {
    const std::uint64_t end = range.base.value + range.size;
    if (range.type == BootMemoryRange::Type::Ram && end > range.base.value) ram_.push_back({range.base.value, end});
  }
  std::ranges::sort(ram_, {}, &Range::begin);
  std::vector<Range> joined;
  for (const Range& range : ram_) {
    if (!joined.empty() && range.begin <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  ram_ = std::move(joined);
}

std::uint64_t LoadPlan::ram_bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const Range& range : ram_) sum += range.end - range.begin;
  return sum;
}

Result<void> LoadPlan::check(const std::string& what, Gpa address, std::uint64_t size) const {
  const std::uint64_t end = address.value + size;
  const auto inside = [&](const Range& range) { return address.value >= range.begin && end <= range.end; };
  if (size == 0 || end < address.value || std::ranges::none_of(ram_, inside)) {
    std::string advice = "the image is damaged or was linked to an address that a PC needs itself";
    const std::uint64_t top = ram_.empty() ? 0 : ram_.back().end;
    if (end > address.value && end > top && end < (std::uint64_t{1} << 40))
      advice = "give the guest more memory: at least --memory " +
               std::to_string(round_up(end + 16 * kMiB, kMiB) / kMiB) + "M";
    return fail(VmError(ErrorCode::InvalidArgument, "place", what,
                        megabytes(size) + " at " + hex(address.value) + " are not in the guest's memory of " +
                            megabytes(ram_bytes()))
                    .with_hint(std::move(advice)));
  }
  for (const Item& item : items_) {
    if (address.value < item.address.value + item.memory_size && item.address.value < end) {
      return fail(
          VmError(ErrorCode::Corrupt, "place", what,
                  "at " + hex(address.value) + " it would lie over the " + item.what + " at " + hex(item.address.value))
              .with_hint("the image is damaged or was linked to an address that a PC needs itself"));
    }
  }
  return {};
}

Result<void> LoadPlan::place(std::string what, Gpa address, std::uint64_t memory_size, const ByteSource& source,
                             std::uint64_t offset, std::uint64_t file_size, Rest rest) {
  if (offset > source.size() || file_size > source.size() - offset) {
    return fail(
        VmError(ErrorCode::Corrupt, "load " + what + " from", source.name(), "the file ends before it (truncated?)")
            .with_hint("copy or build the file again"));
  }
  if (file_size > memory_size)
    return fail(ErrorCode::Corrupt, "load " + what + " from", source.name(), "larger than its place");
  if (auto fits = check(what, address, memory_size); !fits) return fits;
  items_.push_back({std::move(what), address, memory_size, rest == Rest::Zeros ? memory_size : file_size, &source,
                    offset, file_size});
  return {};
}

Result<void> LoadPlan::place(std::string what, Gpa address, std::vector<std::byte> bytes) {
  if (auto fits = check(what, address, bytes.size()); !fits) return fits;
  const std::uint64_t size = bytes.size();
  items_.push_back({std::move(what), address, size, size, nullptr, 0, 0, std::move(bytes)});
  return {};
}

Result<Gpa> LoadPlan::find(const std::string& what, std::uint64_t size, Gpa floor, Gpa limit, Search search) const {
  const std::uint64_t rounded = round_up(std::max<std::uint64_t>(size, 1), kPageSize);
  std::vector<std::uint64_t> candidates;
  // The best place touches something: an end of RAM, the floor, the limit, or what is placed already.
  const bool highest = search == Search::Highest;
  const auto below = [&](std::uint64_t end) {
    if (rounded != 0 && end >= rounded) candidates.push_back(round_down(end - rounded, kPageSize));
  };
  const auto above = [&](std::uint64_t begin) {
    const std::uint64_t aligned = round_up(begin, kPageSize);
    if (aligned >= begin) candidates.push_back(aligned);
  };
  if (highest) {
    below(limit.value);
    for (const Range& range : ram_) below(range.end);
    for (const Item& item : items_) below(item.address.value);
  } else {
    above(floor.value);
    for (const Range& range : ram_) above(range.begin);
    for (const Item& item : items_) above(item.address.value + item.memory_size);
  }
  std::ranges::sort(candidates);
  if (highest) std::ranges::reverse(candidates);
  for (const std::uint64_t begin : candidates) {
    if (begin < floor.value || begin > limit.value || rounded > limit.value - begin) continue;
    if (check(what, Gpa(begin), rounded)) return Gpa(begin);
  }
  return fail(VmError(ErrorCode::InvalidArgument, "place", what,
                      "its " + megabytes(size) + " do not fit into the guest's memory of " + megabytes(ram_bytes()) +
                          " beside the kernel")
                  .with_hint("give the guest more memory (--memory), or a smaller " + what));
}

Result<void> LoadPlan::write(const GuestMemory& memory) const {
  constexpr std::uint64_t kChunk = kMiB;
  std::vector<std::byte> buffer;
  for (const Item& item : items_) {
    const auto refused = [&] {
      return fail(ErrorCode::InvalidArgument, "write " + item.what, hex(item.address.value), "not in guest memory");
    };
    if (item.source == nullptr) {
      if (!memory.write(item.address, item.bytes)) return refused();
      continue;
    }
    for (std::uint64_t done = 0; done < item.write_size;) {
      const std::uint64_t step = std::min(kChunk, item.write_size - done);
      buffer.assign(step, std::byte{0});
      if (done < item.file_size) {
        const std::uint64_t from_file = std::min(step, item.file_size - done);
        if (auto read = item.source->read(item.offset + done, std::span(buffer).first(from_file)); !read) return read;
      }
      if (!memory.write(item.address + done, buffer)) return refused();
      done += step;
    }
  }
  return {};
}

std::vector<BootStatus::Placed> LoadPlan::placed() const {
  std::vector<BootStatus::Placed> list;
  for (const Item& item : items_) list.push_back({item.what, item.address, item.memory_size});
  return list;
}

}  // namespace vm_platform::boot
