// The boot-configuration parsers: the input is every file of the image.
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
}  // namespace

// Each parser sees its own reads.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  BootMenu menu;
  OneFile for_syslinux(text), for_grub(text), for_systemd(text);
  read_syslinux(for_syslinux, "/isolinux/isolinux.cfg", menu);
  read_grub(for_grub, "/boot/grub/grub.cfg", menu);
  read_systemd_boot(for_systemd, menu);
  return 0;
}
