// Memory and strings.
#include <array>
#include <cstring>
#include <vector>

#include "bench/guest/items.hpp"

namespace vm_platform::bench {
namespace {

constexpr std::size_t kLarge = 16 << 20;
std::uint8_t* large(unsigned which) {
  static std::array<std::vector<std::uint8_t>, 2> blocks{std::vector<std::uint8_t>(kLarge),
                                                         std::vector<std::uint8_t>(kLarge)};
  return blocks[which].data();
}

template <std::size_t Size>
std::uint64_t copy(std::uint64_t count) {
  std::uint8_t *to = large(0), *from = large(1);
  for (std::uint64_t i = 0; i < count; ++i) {
    keep(to), keep(from);
    std::size_t size = Size;
    keep(size);
    std::memcpy(to, from, size);
  }
  return to[0];
}
std::uint64_t rep_movsb(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    void* to = large(0);
    const void* from = large(1);
    std::size_t size = 4096;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
  }
  return large(0)[0];
}
std::uint64_t rep_stosq(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    void* to = large(0);
    std::size_t size = 512;
    asm volatile("rep stosq" : "+D"(to), "+c"(size) : "a"(i) : "memory");
  }
  return large(0)[0];
}
std::uint64_t fill(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint8_t* to = large(0);
    keep(to);
    std::memset(to, static_cast<int>(i), 1 << 20);
  }
  return large(0)[77];
}
std::uint64_t strings(std::uint64_t count) {
  char *a = reinterpret_cast<char*>(large(0)), *b = reinterpret_cast<char*>(large(1));
  std::memset(a, 'x', 300), a[299] = 0;
  std::memset(b, 'x', 300), b[299] = 0;
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    keep(a), keep(b);
    sum += std::strlen(a) + static_cast<std::uint64_t>(std::strcmp(a, b)) + (std::strchr(a, 'y') == nullptr);
  }
  return sum;
}
template <std::size_t Bytes>
std::uint64_t chase(std::uint64_t count) {
  static std::vector<std::uint32_t> next = [] {
    const std::size_t n = Bytes / 4;
    std::vector<std::uint32_t> order(n), links(n);
    for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::uint32_t>(i);
    std::uint64_t x = 1;
    for (std::size_t i = n - 1; i > 0; --i) {
      x = x * 6364136223846793005 + 1442695040888963407;
      std::swap(order[i], order[(x >> 33) % i]);
    }
    for (std::size_t i = 0; i < n; ++i) links[order[i]] = order[(i + 1) % n];
    return links;
  }();
  const std::uint32_t* links = next.data();
  std::uint32_t at = 0;
  for (std::uint64_t i = 0; i < count; ++i) at = links[at];
  return at;
}
std::uint64_t stride(std::uint64_t count) {  // a byte of each of 4096 pages: more than a TLB holds
  std::uint64_t sum = 0;
  const volatile std::uint8_t* p = large(0);
  for (std::uint64_t i = 0; i < count; ++i)
    for (std::size_t page = 0; page < kLarge; page += 4096) sum += p[page];
  return sum;
}
std::uint64_t transpose(std::uint64_t count) {
  static std::array<std::array<std::uint64_t, 128>, 128> a, b;
  for (std::uint64_t n = 0; n < count; ++n) {
    for (std::size_t i = 0; i < 128; ++i)
      for (std::size_t j = 0; j < 128; ++j) b[j][i] = a[i][j] + n;
    keep(n);
  }
  return b[5][7];
}

constexpr Item kItems[] = {
    {"memory", "memcpy-64", "64 bytes", copy<64>},
    {"memory", "memcpy-4k", "4 KiB", copy<4096>},
    {"memory", "memcpy-8m", "8 MiB", copy<(8 << 20)>},
    {"memory", "memset-1m", "1 MiB", fill},
    {"memory", "rep-movsb", "4 KiB", rep_movsb},
    {"memory", "rep-stosq", "4 KiB", rep_stosq},
    {"memory", "strings", "strlen, strcmp, strchr of 299 bytes", strings},
    {"memory", "chase-16k", "a link, in the first-level cache", chase<(16 << 10)>},
    {"memory", "chase-32m", "a link, out of the caches", chase<(32 << 20)>},
    {"memory", "page-stride", "a byte from each of 4096 pages", stride},
    {"memory", "transpose", "128 x 128 words", transpose},
};

}  // namespace

std::span<const Item> memory_items() { return kItems; }

}  // namespace vm_platform::bench
