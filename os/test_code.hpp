// Tiny functions in machine code for the tests, for both processors.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#if defined(__has_feature)
#define VMP_TEST_ASAN __has_feature(address_sanitizer)
#define VMP_TEST_TSAN __has_feature(thread_sanitizer)
#else
#define VMP_TEST_ASAN 0
#define VMP_TEST_TSAN 0
#endif

namespace vm_platform::test_code {

inline std::vector<std::byte> bytes_of(std::initializer_list<unsigned> values) {
  std::vector<std::byte> bytes;
  for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

inline std::vector<std::byte> words(std::initializer_list<std::uint32_t> values) {
  std::vector<std::byte> bytes(values.size() * 4);
  std::memcpy(bytes.data(), std::data(values), bytes.size());
  return bytes;
}

/// int f() { return value; }
inline std::vector<std::byte> return_value(std::uint16_t value) {
#if defined(__x86_64__)
  return bytes_of({0xb8, value & 0xffU, static_cast<unsigned>(value >> 8), 0, 0, 0xc3});  // mov eax, value; ret
#else
  return words({0x52800000U | (std::uint32_t{value} << 5), 0xd65f03c0U});  // mov w0, #value; ret
#endif
}

/// int f(const int* p) { return *p; }
inline std::vector<std::byte> load_from_argument() {
#if defined(_WIN32)
  return bytes_of({0x8b, 0x01, 0xc3});  // mov eax, [rcx]; ret
#elif defined(__x86_64__)
  return bytes_of({0x8b, 0x07, 0xc3});  // mov eax, [rdi]; ret
#else
  return words({0xb9400000U, 0xd65f03c0U});  // ldr w0, [x0]; ret
#endif
}

#if defined(__clang__)
// -fsanitize=function reads the bytes before a callee, which for generated code are not its own.
#define VMP_CALLS_GENERATED_CODE __attribute__((no_sanitize("function")))
#else
#define VMP_CALLS_GENERATED_CODE
#endif

template <typename Signature>
Signature* as_function(const std::byte* entry) {
  return std::bit_cast<Signature*>(entry);
}

VMP_CALLS_GENERATED_CODE inline int call(const std::byte* entry) { return as_function<int()>(entry)(); }

}  // namespace vm_platform::test_code
