// The reader with every extension: one binary for each, told apart by VMP_FUZZ_NAMES.
#include <vm_platform/iso_boot.hpp>

using namespace vm_platform;

namespace {
struct Ignore final : IsoIssueSink {
  void issue(const IsoIssue&) override {}
};

void read_everything(const SimpleIso9660& iso) {
  IsoWalk walk(iso, iso.root());
  IsoEntry entry;
  std::array<std::byte, 4096> buffer{};
  for (int steps = 0; steps < 2000; ++steps) {
    auto more = walk.next(entry);
    if (!more) continue;
    if (!*more) break;
    if (entry.is_file()) {
      (void)iso.read(entry, 0, buffer);
      (void)iso.read(entry, entry.size / 2, buffer);
      (void)iso.view(entry);
    }
    (void)iso.extended_attributes(entry);
    (void)iso.find(walk.path());
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  IsoOpenOptions options;
  options.names = IsoNameSpace::VMP_FUZZ_NAMES;
  const auto bytes = std::as_bytes(std::span(data, size));
  auto iso = SimpleIso9660::open_memory(bytes, options);
  if (!iso) return 0;
  read_everything(*iso);
  (void)iso->boot_catalog();
  Ignore sink;
  (void)iso_verify(*iso, sink);
  if (const auto entries = find_boot_entries(*iso)) {
    for (const IsoBootEntry& entry : *entries) {
      // Kernels of 2 GiB of zeros, which an image of a few bytes can have, are within the stated limit, not this one's.
      const auto kernel = iso->find(entry.kernel);
      if (kernel && kernel->size < 16 * kMiB && entry.initrds.empty()) (void)load_boot_entry(*iso, entry);
    }
  }
  return 0;
}
