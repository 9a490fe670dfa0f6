// A parser of boot configurations, one binary for each, told apart by VMP_FUZZ_LOADER: the input is every file of the
// image.
#include <cstdlib>

#include "iso/boot_config/boot_config.hpp"

using namespace vm_platform;
using namespace vm_platform::iso;

namespace {
class OneFile final : public ConfigFiles {
 public:
  explicit OneFile(std::string text) : text_(std::move(text)) {}
  std::optional<std::string> read(const std::string&) override {
    return ++reads_ > 12 ? std::nullopt
                         : std::optional(text_);  // includes are followed, but most time goes into parsing
  }
  bool exists(const std::string& path) override { return path.size() % 2 == 0; }
  bool is_directory(const std::string&) override { return false; }
  std::vector<std::string> list(const std::string&) override { return {"a.conf", "b.conf"}; }
  std::string label() override { return "L"; }

 private:
  std::string text_;
  int reads_ = 0;
};

[[maybe_unused]] void syslinux(ConfigFiles& files, BootMenu& menu) {
  read_syslinux(files, "/isolinux/isolinux.cfg", menu);
}
[[maybe_unused]] void grub(ConfigFiles& files, BootMenu& menu) { read_grub(files, "/boot/grub/grub.cfg", menu); }
[[maybe_unused]] void systemd_boot(ConfigFiles& files, BootMenu& menu) { read_systemd_boot(files, menu); }

/// Of an entry without its `config`, which is the file's own path, and `problem`, which may repeat a path.
std::size_t texts(const IsoBootEntry& entry) {
  std::size_t bytes =
      entry.id.size() + entry.title.size() + entry.kernel.size() + entry.command_line.size() + entry.container.size();
  for (const std::string& initrd : entry.initrds) bytes += sizeof initrd + initrd.size();
  return bytes;
}

/// Less than the program's, so that the seeds that multiply a text reach it quickly.
constexpr std::size_t kBudget = 1 << 20;
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  OneFile files(std::string(reinterpret_cast<const char*>(data), size));
  BootMenu menu;
  menu.bytes_left = kBudget;
  VMP_FUZZ_LOADER(files, menu);
  // Whatever repeats a text has asked for it (BootMenu::take). Small input may be twice what it says: resolved paths.
  std::size_t bytes = 0;
  for (const IsoBootEntry& entry : menu.entries) bytes += texts(entry);
  if (bytes > kBudget + 16 * size + 4096) std::abort();
  return 0;
}
