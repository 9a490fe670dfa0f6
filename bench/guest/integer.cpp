// Integer arithmetic, branches, calls and pointers.
#include <array>
#include <vector>

#include "bench/guest/items.hpp"

namespace vm_platform::bench {
namespace {

std::uint64_t arithmetic(std::uint64_t count) {
  std::uint64_t a = 1, b = 0x9e3779b97f4a7c15;
  for (std::uint64_t i = 0; i < count; ++i) {
    a = a * 6364136223846793005 + i;
    b ^= (a >> 29) + (a << 7);
    a += b & (i | 0xff);
  }
  return a ^ b;
}
std::uint64_t division(std::uint64_t count) {
  std::uint64_t sum = 0, d = 12345;
  for (std::uint64_t i = 0; i < count; ++i) {
    keep(d);
    sum += (i * 0x9e3779b97f4a7c15) / (d + (i & 1023)) + (i % (d + 7));
  }
  return sum;
}
std::uint64_t sieve(std::uint64_t count) {
  static std::array<std::uint8_t, 32768> composite;
  std::uint64_t primes = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    composite.fill(0);
    for (std::size_t i = 2; i < composite.size(); ++i) {
      if (composite[i] != 0) continue;
      ++primes;
      for (std::size_t j = 2 * i; j < composite.size(); j += i) composite[j] = 1;
    }
  }
  return primes;
}
void quicksort(int* first, int* last) {
  while (last - first > 1) {
    const int pivot = first[(last - first) / 2];
    int *low = first, *high = last - 1;
    while (low <= high) {
      while (*low < pivot) ++low;
      while (*high > pivot) --high;
      if (low > high) break;
      const int t = *low;
      *low++ = *high;
      *high-- = t;
    }
    quicksort(first, high + 1);
    first = low;
  }
}
std::uint64_t sort(std::uint64_t count) {
  static std::array<int, 4096> values;
  std::uint64_t sum = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    std::uint32_t x = static_cast<std::uint32_t>(n) | 1;
    for (int& v : values) v = static_cast<int>((x = x * 1664525 + 1013904223) >> 8);
    quicksort(values.data(), values.data() + values.size());
    sum += static_cast<std::uint64_t>(values[100]);
  }
  return sum;
}
std::uint64_t unpredictable_branches(std::uint64_t count) {
  std::uint64_t x = 88172645463325252, a = 0, b = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    if ((x & 1) != 0) {
      asm volatile("" ::: "memory");
      ++a;
    } else {
      asm volatile("" ::: "memory");
      b += x & 3;
    }
  }
  return a + b;
}
[[gnu::noinline]] std::uint64_t fibonacci(std::uint64_t n) {
  if (n < 2) return n;
  std::uint64_t a = fibonacci(n - 1);
  keep(a);
  std::uint64_t b = fibonacci(n - 2);
  keep(b);  // so that the recursion does not become a loop
  return a + b;
}
std::uint64_t calls(std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) sum += fibonacci(18);
  return sum;
}
struct Shape {
  virtual ~Shape() = default;
  virtual std::uint64_t area(std::uint64_t x) const = 0;
};
template <int N>
struct Polygon : Shape {
  std::uint64_t area(std::uint64_t x) const override { return x * N + 1; }
};
std::uint64_t indirect_calls(std::uint64_t count) {
  static const Polygon<3> a;
  static const Polygon<4> b;
  static const Polygon<5> c;
  static const Polygon<6> d;
  static const std::array<const Shape*, 8> shapes = {&a, &b, &c, &d, &b, &a, &d, &c};
  std::uint64_t x = 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Shape* shape = shapes[i & 7];
    keep(shape);
    x = shape->area(x) & 0xffff;
  }
  return x;
}
std::uint64_t interpreter(std::uint64_t count) {  // a byte code machine: a jump through a table for each step
  static const std::array<std::uint8_t, 16> program = {0, 1, 2, 3, 4, 1, 0, 5, 2, 6, 3, 4, 0, 1, 5, 7};
  std::uint64_t acc = 1, pc = 0, left = count;
  for (;;) {
    std::uint64_t op = program[pc++ & 15];
    keep(op);
    switch (op) {
      case 0: acc += 3; break;
      case 1: acc ^= acc << 3; break;
      case 2: acc -= 7; break;
      case 3: acc = (acc << 1) | (acc >> 63); break;
      case 4: acc += pc; break;
      case 5: acc ^= 0x55; break;
      case 6: acc *= 5; break;
      default:
        if (--left == 0) return acc;
    }
  }
}
std::uint64_t sha256(std::uint64_t count) {
  static constexpr std::array<std::uint32_t, 64> kRound = [] {
    std::array<std::uint32_t, 64> k{};
    std::uint32_t x = 0x428a2f98;
    for (auto& v : k) v = x = x * 1664525 + 1013904223;  // the constants' values do not matter here
    return k;
  }();
  std::array<std::uint32_t, 8> h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const auto rotate = [](std::uint32_t v, unsigned n) { return (v >> n) | (v << (32 - n)); };
  for (std::uint64_t n = 0; n < count; ++n) {
    std::array<std::uint32_t, 64> w;
    for (std::size_t i = 0; i < 16; ++i) w[i] = static_cast<std::uint32_t>(n * 31 + i);
    for (std::size_t i = 16; i < 64; ++i)
      w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3)) +
             (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10));
    auto s = h;
    for (std::size_t i = 0; i < 64; ++i) {
      const std::uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                               ((s[4] & s[5]) ^ (~s[4] & s[6])) + kRound[i] + w[i];
      const std::uint32_t t2 =
          (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      s = {t1 + t2, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]};
    }
    for (std::size_t i = 0; i < 8; ++i) h[i] += s[i];
  }
  return h[0];
}
std::uint64_t hash_table(std::uint64_t count) {
  static std::vector<std::uint64_t> keys(8192), values(8192);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t key = (i * 0x9e3779b97f4a7c15) >> 51 | 1;
    std::size_t slot = (key * 0xff51afd7ed558ccd) >> 51;
    while (keys[slot] != 0 && keys[slot] != key) slot = (slot + 1) & 8191;
    keys[slot] = key;
    sum += ++values[slot];
  }
  return sum;
}
struct Node {
  Node *left = nullptr, *right = nullptr;
  std::uint64_t key = 0;
};
std::uint64_t tree(std::uint64_t count) {  // lookups in a binary tree of 4095 nodes
  static std::vector<Node> nodes = [] {
    std::vector<Node> all(4095);
    std::size_t used = 0;
    const auto build = [&](auto& self, std::uint64_t low, std::uint64_t high) -> Node* {
      if (low >= high) return nullptr;
      Node* n = &all[used++];
      n->key = (low + high) / 2;
      n->left = self(self, low, n->key);
      n->right = self(self, n->key + 1, high);
      return n;
    };
    build(build, 0, 4095);
    return all;
  }();
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t key = (i * 2654435761) % 4095;
    for (const Node* n = nodes.data(); n != nullptr; n = key < n->key ? n->left : n->right)
      if (n->key == key) {
        ++found;
        break;
      }
  }
  return found;
}

constexpr Item kItems[] = {
    {"integer", "arithmetic", "multiply, add, shift", arithmetic},
    {"integer", "division", "64-bit divide and remainder", division},
    {"integer", "sieve", "primes to 32768", sieve},
    {"integer", "sort", "quicksort of 4096 integers", sort},
    {"integer", "branches", "an unpredictable branch", unpredictable_branches},
    {"integer", "calls", "recursive fibonacci(18)", calls},
    {"integer", "indirect-calls", "a virtual call", indirect_calls},
    {"integer", "interpreter", "16 steps of a byte code machine", interpreter},
    {"integer", "sha256", "a block of SHA-256", sha256},
    {"integer", "hash-table", "a look-up and update", hash_table},
    {"integer", "tree", "a look-up in a binary tree", tree},
};

}  // namespace

std::span<const Item> integer_items() { return kItems; }

}  // namespace vm_platform::bench
