// Writes the images that the loaders' fuzzers begin with into a folder: boot_corpus FOLDER.
#include <filesystem>
#include <fstream>

#include "boot/test_images.hpp"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  using namespace vm_platform::boot;
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const std::vector<std::byte>& bytes) {
    std::ofstream(folder / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  write("linux", test::bz_image());
  write("pvh", test::elf());
  write("pvh32", test::elf({.is_64 = false}));
  write("multiboot-elf", test::elf({.is_64 = false, .pvh_note = false, .multiboot = true}));
  write("multiboot-flat", test::multiboot_flat());
  return 0;
}
