// SUSP and Rock Ridge: one record's system use area, whose continuations lie anywhere in the input.
#include "fuzz/iso_fuzz_input.hpp"
#include "iso/rock_ridge.hpp"

using namespace vm_platform;
using namespace vm_platform::iso;

namespace {
struct Ignore final : Checker {
  void complain(std::uint64_t, std::string) override {}
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes input = std::as_bytes(std::span(data, size));
  Susp susp;
  susp.skip = static_cast<std::uint8_t>(take_number(input, 1) & 15);
  const auto source = make_memory_source(input);
  const Bytes area = input.first(std::min<std::size_t>(input.size(), 220));
  ContinuationReader continuations(*source);
  IsoEntry entry;
  RockRidgeLinks links;
  Ignore checker;
  // Small blocks, so that small numbers lead to many places.
  for (const std::uint32_t block_size : {16u, 2048u}) {
    susp.block_size = block_size;
    (void)read_system_use(susp, area, 0, continuations, entry, links, &checker);
    (void)read_system_use(susp, area, 0, continuations, entry, links, nullptr);
    (void)detect_susp(area, block_size, *source);
  }
  return 0;
}
