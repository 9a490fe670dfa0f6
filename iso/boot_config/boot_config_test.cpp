#include "iso/boot_config/boot_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FakeFiles final : public ConfigFiles {
 public:
  std::map<std::string, std::string> files;
  std::optional<std::string> read(const std::string& path) override {
    const auto found = files.find(path);
    return found == files.end() ? std::nullopt : std::optional(found->second);
  }
  bool exists(const std::string& path) override { return files.contains(path) || is_directory(path); }
  bool is_directory(const std::string& path) override {
    const auto after = files.lower_bound(path + "/");
    return after != files.end() && after->first.starts_with(path + "/");
  }
  std::vector<std::string> list(const std::string& path) override {
    std::vector<std::string> names;
    for (const auto& [name, content] : files) {
      if (name.starts_with(path + "/")) names.push_back(name.substr(path.size() + 1));
    }
    return names;
  }
  std::string label() override { return "DISC"; }
};

BootMenu syslinux(FakeFiles& files, const std::string& text) {
  files.files["/isolinux/isolinux.cfg"] = text;
  BootMenu menu;
  read_syslinux(files, "/isolinux/isolinux.cfg", menu);
  return menu;
}
BootMenu grub(FakeFiles& files, const std::string& text) {
  files.files["/boot/grub/grub.cfg"] = text;
  BootMenu menu;
  read_grub(files, "/boot/grub/grub.cfg", menu);
  return menu;
}
std::vector<std::string> titles(const BootMenu& menu) {
  std::vector<std::string> all;
  for (const IsoBootEntry& entry : menu.entries) all.push_back(entry.title);
  return all;
}

TEST(SyslinuxTest, MenuWithIncludesAsDebianHasIt) {
  FakeFiles files;
  files.files["/isolinux/menu.cfg"] =
      "menu title Installer\ninclude txt.cfg\nmenu begin advanced\n  menu title Advanced options\n"
      "  label expert\n    menu label ^Expert install\n    kernel vmlinuz\n    append priority=low\nmenu end\n";
  files.files["/isolinux/txt.cfg"] =
      "label install\n\tmenu label ^Install\n\tmenu default\n\tkernel /install.amd/vmlinuz\n"
      "\tappend vga=788 initrd=/install.amd/initrd.gz,extra.gz --- quiet \n";
  const BootMenu menu = syslinux(files, "# comment\npath \ninclude menu.cfg\nDEFAULT vesamenu.c32\nprompt 0\n");
  EXPECT_THAT(titles(menu), ElementsAre("Install", "Advanced options > Expert install"));
  const IsoBootEntry& install = menu.entries.at(0);
  EXPECT_EQ(install.id, "install");
  EXPECT_EQ(install.kernel, "/install.amd/vmlinuz");
  EXPECT_THAT(install.initrds, ElementsAre("/install.amd/initrd.gz", "/isolinux/extra.gz"));
  EXPECT_EQ(install.command_line, "vga=788 --- quiet");
  EXPECT_EQ(menu.entries.at(1).kernel, "/isolinux/vmlinuz");
  EXPECT_EQ(menu.default_entry, 0u);
}

/// Debian's help screen is a configuration that includes the menu again, with another default.
TEST(SyslinuxTest, HelpThatLeadsBackToTheMenuAddsNothing) {
  FakeFiles files;
  files.files["/isolinux/menu.cfg"] =
      "include txt.cfg\nmenu begin dark\n label mainmenu\n  menu label ^Back..\n  menu exit\n include drk.cfg\nmenu "
      "end\n"
      "label help\n menu label ^Help\n text help\n   label this is no label\n endtext\n config prompt.cfg\n";
  files.files["/isolinux/txt.cfg"] = "label install\n kernel linux\n";
  files.files["/isolinux/drk.cfg"] = "default dark\nlabel dark\n menu default\n kernel linux\n append dark\n";
  files.files["/isolinux/prompt.cfg"] = "default dark\ninclude menu.cfg\nlabel rescue\n kernel linux\n append rescue\n";
  const BootMenu menu = syslinux(files, "include menu.cfg\ndefault vesamenu.c32\n");
  EXPECT_THAT(titles(menu), ElementsAre("install", "dark > dark", "Help > rescue"));
  EXPECT_FALSE(menu.default_entry) << "the first that can be booted";
}

/// Found by fuzzing: a file that a label leads to ends more menus than it begins.
TEST(SyslinuxTest, MenusThatAreEndedButNotBegun) {
  FakeFiles files;
  files.files["/isolinux/other.cfg"] = "menu end\nmenu end\nlabel inner\n kernel k\nmenu begin open\n";
  const BootMenu menu =
      syslinux(files, "menu begin sub\nlabel more\n config other.cfg\nlabel after\n kernel k\nmenu end\nmenu end\n");
  EXPECT_THAT(titles(menu), ElementsAre("inner", "sub > after"));
}

TEST(SyslinuxTest, DefaultLabelGlobalAppendAndInitrdDirective) {
  FakeFiles files;
  const BootMenu menu = syslinux(
      files,
      "default two\nappend root=/dev/ram\nlabel one\n linux k1\nlabel two\n linux k2\n initrd a.img\n append -\n"
      "label local\n localboot 0x80\nlabel mem\n kernel memtest.bin\nlabel mb\n kernel mboot.c32\n append xen.gz dom0 "
      "--- vmlinuz ro --- initrd\n");
  EXPECT_EQ(menu.default_entry, 1u);
  EXPECT_EQ(menu.entries.at(0).command_line, "root=/dev/ram");
  EXPECT_EQ(menu.entries.at(1).command_line, "");
  EXPECT_THAT(menu.entries.at(1).initrds, ElementsAre("/isolinux/a.img"));
  EXPECT_EQ(menu.entries.at(2).protocol, IsoBootProtocol::Firmware);
  EXPECT_THAT(menu.entries.at(3).problem, HasSubstr("memtest.bin"));
  EXPECT_EQ(menu.entries.at(4).protocol, IsoBootProtocol::Multiboot);
  EXPECT_EQ(menu.entries.at(4).kernel, "/isolinux/xen.gz");
  EXPECT_THAT(menu.entries.at(4).initrds, ElementsAre("/isolinux/vmlinuz", "/isolinux/initrd"));
}

TEST(SyslinuxTest, DefaultCommandLineAndLoops) {
  FakeFiles files;
  files.files["/isolinux/vmlinuz"] = "";
  const BootMenu menu = syslinux(files, "default vmlinuz quiet\ninclude isolinux.cfg\n");
  ASSERT_EQ(menu.entries.size(), 1u);
  EXPECT_EQ(menu.entries[0].kernel, "/isolinux/vmlinuz");
  EXPECT_EQ(menu.entries[0].command_line, "quiet");
}

TEST(GrubTest, VariablesSubmenusAndDefault) {
  FakeFiles files;
  const BootMenu menu = grub(files, R"(
set default="1>second"
set opts="quiet splash"
menuentry 'First entry' --class debian $menuentry_id_option 'first' {
  set gfxpayload=keep
  linux   /live/vmlinuz boot=live ${opts} "a b"
  initrd  /live/initrd.img /live/more.img
}
submenu "More" {
  menuentry "Second" --id second { linux /k2; initrd /i2 }
}
menuentry "Firmware" { fwsetup }
menuentry "Chain" { chainloader /EFI/x.efi }
)");
  EXPECT_THAT(titles(menu), ElementsAre("First entry", "More > Second", "Firmware", "Chain"));
  EXPECT_EQ(menu.entries.at(0).id, "first");
  EXPECT_EQ(menu.entries.at(0).command_line, "boot=live quiet splash a b");
  EXPECT_THAT(menu.entries.at(0).initrds, ElementsAre("/live/initrd.img", "/live/more.img"));
  EXPECT_EQ(menu.default_entry, 1u);
  EXPECT_EQ(menu.entries.at(2).protocol, IsoBootProtocol::Firmware);
  EXPECT_THAT(menu.entries.at(3).problem, HasSubstr("chainloader"));
}

TEST(GrubTest, ConditionsSearchSourceAndFunctions) {
  FakeFiles files;
  files.files["/live/vmlinuz"] = "";
  files.files["/boot/grub/theme.cfg"] = "set from_theme=yes\n";
  const BootMenu menu = grub(files, R"(
source $prefix/theme.cfg
if [ "$from_theme" = yes -a -f /live/vmlinuz ]; then k=/live/vmlinuz; else k=/wrong; fi
if [ -z "$nothing" ]; then
  if search --no-floppy --file --set=root /missing; then k=/wrong; elif [ 2 -gt 1 ]; then opt=nested; fi
fi
search --set=root --label DISC
function boot_it { linux $k $opt; }
for n in a b; do
  menuentry "Entry $n" { boot_it }
done
)");
  EXPECT_THAT(titles(menu), ElementsAre("Entry a", "Entry b"));
  EXPECT_EQ(menu.entries[0].kernel, "/live/vmlinuz");
  EXPECT_EQ(menu.entries[0].command_line, "nested");
  EXPECT_TRUE(menu.entries[0].problem.empty());
}

TEST(GrubTest, LoopbackAndOtherDevices) {
  FakeFiles files;
  const BootMenu menu = grub(files, R"(
menuentry "Loop" { loopback loop /isos/live.iso; linux (loop)/casper/vmlinuz iso-scan/filename=/isos/live.iso; initrd (loop)/casper/initrd }
menuentry "Disk" { set root=(hd0,msdos1); linux /vmlinuz }
)");
  EXPECT_EQ(menu.entries.at(0).container, "/isos/live.iso");
  EXPECT_EQ(menu.entries.at(0).kernel, "/casper/vmlinuz");
  EXPECT_THAT(menu.entries.at(1).problem, HasSubstr("another device"));
}

TEST(GrubTest, HostileScriptsEnd) {
  FakeFiles files;
  EXPECT_TRUE(grub(files, "function f { f; f; }\nf\nsource $prefix/grub.cfg\n").entries.empty());
  EXPECT_TRUE(grub(files,
                   "set a=xxxxxxxx\nset a=$a$a$a$a\nset a=$a$a$a$a\nset a=$a$a$a$a\nset a=$a$a$a$a\nset "
                   "a=$a$a$a$a\nset a=$a$a$a$a\nset a=$a$a$a$a\n")
                  .entries.empty());
  EXPECT_TRUE(grub(files, std::string(100000, '{')).entries.empty());
  EXPECT_TRUE(grub(files, std::string(100000, '}')).entries.empty());
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "if true; then ";
  EXPECT_TRUE(grub(files, nested).entries.empty());
  EXPECT_TRUE(grub(files, "if\nfi\nfor\nfunction\nmenuentry\n${\n'\"").entries.empty());
  EXPECT_LE(grub(files,
                 "for a in 1 2 3 4 5 6 7 8 9; do for b in 1 2 3 4 5 6 7 8 9; do for c in 1 2 3 4 5 6 7 8 9; do for d "
                 "in 1 2 3 4 5 6 7 8 9; do "
                 "menuentry x { linux /k }; done; done; done; done\n")
                .entries.size(),
            kMaxBootEntries);
}

/// Rounds are counted as commands are: nothing else runs in these, and there are 100^12 of them.
TEST(GrubTest, LoopsWithoutCommandsEnd) {
  std::string words = "0";
  for (int i = 1; i < 100; ++i) words += " " + std::to_string(i);
  std::string script, ends;
  for (int i = 0; i < 12; ++i) {
    script += "for v" + std::to_string(i) + " in " + words + " ; do\n";
    ends += "done\n";
  }
  FakeFiles files;
  const auto start = std::chrono::steady_clock::now();
  const BootMenu menu =
      grub(files, "menuentry before { linux /k }\n" + script + ends + "menuentry after { linux /k }\n");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_THAT(titles(menu), ElementsAre("before")) << "what is past the limit is not read";
}

TEST(SystemdBootTest, EntriesAndDefaultPattern) {
  FakeFiles files;
  files.files["/loader/loader.conf"] = "timeout 3\ndefault arch-*.conf\n";
  files.files["/loader/entries/arch-1.conf"] =
      "title Arch\nversion 6.1\nlinux /vmlinuz\ninitrd /ucode.img\ninitrd /initrd.img\noptions root=x\noptions quiet\n";
  files.files["/loader/entries/shell.conf"] = "title Shell\nefi /shell.efi\n";
  BootMenu menu;
  read_systemd_boot(files, menu);
  EXPECT_THAT(titles(menu), ElementsAre("Shell", "Arch (6.1)"));
  EXPECT_EQ(menu.default_entry, 1u);
  EXPECT_EQ(menu.entries[1].command_line, "root=x quiet");
  EXPECT_THAT(menu.entries[1].initrds, ElementsAre("/ucode.img", "/initrd.img"));
  EXPECT_EQ(menu.entries[0].protocol, IsoBootProtocol::Firmware);
}

TEST(BootEntriesTest, FoundChosenAndLoadedFromAnImage) {
  testing::TestImage image;
  const std::string config =
      "default b\nlabel a\n kernel NOPE\nlabel b\n menu label The b\n kernel vmlinuz\n append quiet initrd=INITRD\n";
  const auto cfg = image.add_file(config), kernel = image.add_file("KERNEL"), initrd = image.add_file("12345");
  const auto root = image.add_directory({{"INITRD.;1", initrd, 5},
                                         {"ISOLINUX.CFG;1", cfg, static_cast<std::uint32_t>(config.size())},
                                         {"VMLINUZ.;1", kernel, 6}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const auto entries = find_boot_entries(iso).value();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_THAT(entries[0].problem, HasSubstr("/NOPE is not in the image"));
  EXPECT_EQ(choose_boot_entry(entries, "").value().id, "b");
  EXPECT_EQ(choose_boot_entry(entries, "The b").value().id, "b");
  EXPECT_EQ(choose_boot_entry(entries, "1").value().id, "a");
  EXPECT_THAT(choose_boot_entry(entries, "zzz").error().message(), HasSubstr("it has: a, b"));
  const auto files = load_boot_entry(iso, entries[1], "extra").value();
  EXPECT_EQ(files.kernel.size(), 6u);
  EXPECT_EQ(files.initramfs.size(), 5u);
  EXPECT_EQ(files.command_line, "quiet extra console=ttyS0");
  EXPECT_TRUE(files.console_added);
  EXPECT_FALSE(load_boot_entry(iso, entries[1], "console=ttyS1").value().console_added);
  EXPECT_EQ(load_boot_entry(iso, entries[0]).error().code(), ErrorCode::Unsupported);
}

}  // namespace
}  // namespace vm_platform::iso
