// Floating point: scalar, x87, vector.
#include <immintrin.h>

#include <array>
#include <bit>
#include <cmath>

#include "bench/guest/items.hpp"

namespace vm_platform::bench {
namespace {

std::uint64_t bits(double v) { return std::bit_cast<std::uint64_t>(v); }

std::uint64_t n_body(std::uint64_t count) {
  struct Body {
    double x, y, z, vx, vy, vz, mass;
  };
  static std::array<Body, 5> bodies = {{{0, 0, 0, 0, 0, 0, 39.5},
                                        {4.8, -1.2, -0.1, 0.6, 2.8, -0.02, 0.04},
                                        {8.3, 4.1, -0.4, -1.0, 1.8, 0.01, 0.01},
                                        {12.9, -15.1, -0.2, 1.1, 0.9, -0.01, 0.002},
                                        {15.4, -25.9, 0.2, 1.0, 0.6, -0.03, 0.002}}};
  for (std::uint64_t n = 0; n < count; ++n) {
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = i + 1; j < 5; ++j) {
        Body &a = bodies[i], &b = bodies[j];
        const double dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
        const double d2 = dx * dx + dy * dy + dz * dz + 0.01, mag = 0.001 / (d2 * std::sqrt(d2));
        a.vx -= dx * b.mass * mag, a.vy -= dy * b.mass * mag, a.vz -= dz * b.mass * mag;
        b.vx += dx * a.mass * mag, b.vy += dy * a.mass * mag, b.vz += dz * a.mass * mag;
      }
    for (Body& b : bodies) b.x += 0.001 * b.vx, b.y += 0.001 * b.vy, b.z += 0.001 * b.vz;
  }
  return bits(bodies[0].x);
}
std::uint64_t mandelbrot(std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    const double cr = -0.7 + 1e-6 * static_cast<double>(n & 1023), ci = 0.2;
    double zr = 0, zi = 0;
    for (int i = 0; i < 200 && zr * zr + zi * zi < 4; ++i) {
      const double t = zr * zr - zi * zi + cr;
      zi = 2 * zr * zi + ci;
      zr = t;
      ++sum;
    }
  }
  return sum;
}
std::uint64_t divide_and_root(std::uint64_t count) {
  double x = 2, y = 3;
  for (std::uint64_t i = 0; i < count; ++i) {
    keep(i);
    x = std::sqrt(x + y) / (y + 0.5);
    y = y / 1.0001 + 0.01;
  }
  return bits(x + y);
}
std::uint64_t dot_scalar(std::uint64_t count) {
  static std::array<double, 1024> a, b;
  double sum = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    a[n & 1023] = static_cast<double>(n);
    for (std::size_t i = 0; i < 1024; ++i) sum += a[i] * b[i];
    keep(n);
  }
  return bits(sum);
}
std::uint64_t x87_polynomial(std::uint64_t count) {
  long double x = 0.5L, sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    sum += ((((x * 0.1L + 0.2L) * x + 0.3L) * x + 0.4L) * x + 0.5L) * x;
    x = x > 0.9L ? 0.1L : x + 0.001L;
  }
  return static_cast<std::uint64_t>(sum);
}
std::uint64_t x87_functions(std::uint64_t count) {
  long double x = 0.1L;
  for (std::uint64_t i = 0; i < count; ++i) {
    long double s = x;
    asm volatile("fsin" : "+t"(s));
    asm volatile("fsqrt" : "+t"(s));
    x = s * 0.5L + 0.1L;
  }
  return static_cast<std::uint64_t>(x * 1e6L);
}
std::uint64_t matrix_sse(std::uint64_t count) {  // 32 x 32 floats, SSE
  alignas(64) static std::array<std::array<float, 32>, 32> a, b, c;
  for (std::uint64_t n = 0; n < count; ++n) {
    a[n & 31][3] = static_cast<float>(n & 7);
    for (std::size_t i = 0; i < 32; ++i)
      for (std::size_t j = 0; j < 32; j += 4) {
        __m128 sum = _mm_setzero_ps();
        for (std::size_t k = 0; k < 32; ++k)
          sum = _mm_add_ps(sum, _mm_mul_ps(_mm_set1_ps(a[i][k]), _mm_load_ps(&b[k][j])));
        _mm_store_ps(&c[i][j], sum);
      }
    keep(n);
  }
  return bits(static_cast<double>(c[3][4]));
}
[[gnu::target("avx2,fma")]] std::uint64_t matrix_avx2(std::uint64_t count) {
  alignas(64) static std::array<std::array<float, 32>, 32> a, b, c;
  for (std::uint64_t n = 0; n < count; ++n) {
    a[n & 31][3] = static_cast<float>(n & 7);
    for (std::size_t i = 0; i < 32; ++i)
      for (std::size_t j = 0; j < 32; j += 8) {
        __m256 sum = _mm256_setzero_ps();
        for (std::size_t k = 0; k < 32; ++k)
          sum = _mm256_fmadd_ps(_mm256_set1_ps(a[i][k]), _mm256_load_ps(&b[k][j]), sum);
        _mm256_store_ps(&c[i][j], sum);
      }
    keep(n);
  }
  return bits(static_cast<double>(c[3][4]));
}
[[gnu::target("avx2")]] std::uint64_t integer_avx2(std::uint64_t count) {
  alignas(64) static std::array<std::uint8_t, 4096> data;
  __m256i sum = _mm256_setzero_si256();
  for (std::uint64_t n = 0; n < count; ++n) {
    data[n & 4095] = static_cast<std::uint8_t>(n);
    for (std::size_t i = 0; i < data.size(); i += 32) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(&data[i]));
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_shuffle_epi8(v, _mm256_set1_epi8(3)), _mm256_setzero_si256()));
    }
    keep(n);
  }
  return static_cast<std::uint64_t>(_mm256_extract_epi64(sum, 0));
}

constexpr Item kItems[] = {
    {"floating", "n-body", "a step of five bodies", n_body},
    {"floating", "mandelbrot", "a point, 200 rounds", mandelbrot},
    {"floating", "divide-root", "two divisions and a root", divide_and_root},
    {"floating", "dot-scalar", "1024 doubles, scalar", dot_scalar},
    {"floating", "x87-polynomial", "degree 5, 80 bits", x87_polynomial},
    {"floating", "x87-functions", "fsin and fsqrt", x87_functions},
    {"floating", "matrix-sse", "32 x 32 floats", matrix_sse},
    {"floating", "matrix-avx2", "32 x 32 floats with FMA", matrix_avx2},
    {"floating", "bytes-avx2", "4 KiB, shuffle and sum", integer_avx2},
};

}  // namespace

std::span<const Item> floating_items() { return kItems; }

}  // namespace vm_platform::bench
