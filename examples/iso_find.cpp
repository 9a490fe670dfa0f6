// Lists the largest files of a disc image: iso_find IMAGE
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>
#include <vm_platform/iso.hpp>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: iso_find IMAGE\n");
    return 2;
  }
  auto iso = vm_platform::SimpleIso9660::open(argv[1]);
  if (!iso) {
    std::fprintf(stderr, "iso_find: %s\n", iso.error().message().c_str());
    return 2;
  }
  std::vector<std::pair<std::uint64_t, std::string>> files;
  vm_platform::IsoWalk walk(*iso, iso->root());
  vm_platform::IsoEntry entry;
  for (;;) {
    const auto more = walk.next(entry);
    if (!more) {  // one damaged place; the walk goes on behind it
      std::fprintf(stderr, "iso_find: %s\n", more.error().message().c_str());
      continue;
    }
    if (!*more) break;
    if (entry.is_file()) files.emplace_back(entry.size, walk.path());
  }
  std::ranges::sort(files, std::greater());
  for (std::size_t i = 0; i < std::min<std::size_t>(10, files.size()); ++i) {
    std::printf("%12llu  %s\n", static_cast<unsigned long long>(files[i].first), files[i].second.c_str());
  }
  return 0;
}
