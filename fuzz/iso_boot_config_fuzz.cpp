// A parser of boot configurations, one binary for each, told apart by VMP_FUZZ_LOADER: the input is every file of the
// image.
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
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  OneFile files(std::string(reinterpret_cast<const char*>(data), size));
  BootMenu menu;
  VMP_FUZZ_LOADER(files, menu);
  return 0;
}
