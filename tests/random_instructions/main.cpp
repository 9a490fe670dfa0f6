// Random instructions, run by the host's CPU and by the engine, compared bit for bit.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "tests/random_instructions/compare.hpp"
#include "tests/random_instructions/generator.hpp"
#include "tests/random_instructions/native.hpp"
#ifndef VMP_NATIVE_ONLY
#include "tests/random_instructions/guest.hpp"
#endif

namespace vm_platform::random_instructions {
namespace {

constexpr std::string_view kHelp = R"(usage: random_instructions [option...]
Runs random sequences of user-mode instructions natively and under the software engine and compares registers, flags,
x87 / SSE / AVX state, memory, and the exception that ends each.
  --sequences N   how many (default 20000)
  --seconds S     as long as this, instead
  --seed N        of the first sequence; the following ones count up (default 1)
  --only N        runs and prints one sequence
  --length N      about how many instructions in a sequence (default 12)
  --native        compares the host with itself: what is not deterministic shows
  --coverage      prints how often each instruction was generated
  --keep-going    goes on after a difference (stops after 50)
)";

struct Options {
  std::uint64_t sequences = 20000, seed = 1;
  double seconds = 0;
  bool native = false, coverage = false, keep_going = false, only = false;
  GeneratorOptions generator;
};

std::optional<Options> parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--native")
      o.native = true;
    else if (name == "--coverage")
      o.coverage = true;
    else if (name == "--keep-going")
      o.keep_going = true;
    else {
      if (i + 1 == argc) return std::nullopt;
      const std::string_view text = argv[++i];
      std::uint64_t value = 0;
      if (const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
          error != std::errc() || end != text.data() + text.size())
        return std::nullopt;
      if (name == "--sequences")
        o.sequences = value;
      else if (name == "--seconds")
        o.seconds = static_cast<double>(value);
      else if (name == "--seed")
        o.seed = value;
      else if (name == "--length")
        o.generator.instructions =
            static_cast<unsigned>(std::max<std::uint64_t>(1, std::min<std::uint64_t>(value, 60)));
      else if (name == "--only")
        o.seed = value, o.sequences = 1, o.only = true;
      else
        return std::nullopt;
    }
  }
#ifdef VMP_NATIVE_ONLY
  o.native = true;
#endif
  return o;
}

int run(const Options& o) {
  NativeCpu native;
#ifndef VMP_NATIVE_ONLY
  std::unique_ptr<GuestCpu> guest;
  if (!o.native) guest = std::make_unique<GuestCpu>();
#endif
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  std::uint64_t done = 0, differences = 0;
  std::array<std::uint64_t, 32> ends{};
  for (std::uint64_t seed = o.seed; o.seconds > 0 ? elapsed() < o.seconds : done < o.sequences; ++seed, ++done) {
    const Sequence sequence = generate(seed, o.generator);
    if (o.only) fmt::print("{}{}", describe(sequence.initial), disassemble(sequence));
    const Outcome expected = native.run(sequence);
    const MemoryImage expected_memory = [&](std::size_t page) { return native.data() + 4096 * page; };
    ++ends[expected.vector & 31];
    std::string report;
    if (o.native) {
      const std::vector<std::uint8_t> before = copy_pages(expected_memory);
      const Outcome again = native.run(sequence);
      report =
          compare(sequence, expected, [&](std::size_t page) { return &before[4096 * page]; }, again, expected_memory);
    }
#ifndef VMP_NATIVE_ONLY
    else {
      try {
        const Outcome got = guest->run(sequence);
        report =
            compare(sequence, expected, expected_memory, got, [&](std::size_t page) { return guest->data_page(page); });
      } catch (const std::runtime_error& error) {
        report = fmt::format("  the engine did not finish: {}\n", error.what());
        guest = std::make_unique<GuestCpu>();
      }
    }
#endif
    if (o.only)
      fmt::print("natively: vector {} error {:x} cr2 {:x}\n{}", expected.vector, expected.error_code,
                 expected.fault_address, describe(expected.state));
    if (report.empty()) continue;
    fmt::print("sequence {} (--only {} shows all of it): native, then {}\n{}{}\n", seed, seed,
               o.native ? "native again" : "engine", report, disassemble(sequence));
    if (++differences >= (o.keep_going ? 50U : 1U)) break;
  }
  std::uint64_t instructions = 0;
  for (const auto& [name, count] : generated_mnemonics()) {
    instructions += count;
    if (o.coverage) fmt::print("{:10} {}\n", count, name);
  }
  fmt::print("{} sequences, {} instructions of {} kinds, {} differ; {:.1f} s\nended by", done, instructions,
             generated_mnemonics().size(), differences, elapsed());
  for (std::size_t v = 0; v < ends.size(); ++v)
    if (ends[v] != 0) fmt::print(" {}: {}", v == 3 ? "their end" : fmt::format("vector {}", v), ends[v]);
  fmt::print("\n");
  return differences == 0 ? 0 : 1;
}

}  // namespace
}  // namespace vm_platform::random_instructions

int main(int argc, char** argv) {
  using namespace vm_platform::random_instructions;
  const auto options = parse(argc, argv);
  if (!options) {
    const bool asked = argc > 1 && std::string_view(argv[1]) == "--help";
    std::fputs(kHelp.data(), asked ? stdout : stderr);
    return asked ? 0 : 2;
  }
  try {
    return run(*options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "random_instructions: {}\n", error.what());
    return 2;
  }
}
