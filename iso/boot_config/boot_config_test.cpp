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

/// What an entry changes is gone at its end, and what was there before is there again.
TEST(GrubTest, EntriesKeepTheirSettingsToThemselves) {
  FakeFiles files;
  const BootMenu menu = grub(files, R"(
set a=1
set b=2
menuentry "one" { set a=changed; set a=again; unset b; set new=x; loopback loop /l.iso; linux /k $a $b $new }
submenu "sub" {
  set a=sub
  menuentry "two" { set a=inner; linux (loop)/k $a $b $new }
  menuentry "three" { linux /k $a $b }
}
menuentry "four" { linux /k $a $b $new }
)");
  ASSERT_EQ(menu.entries.size(), 4u);
  EXPECT_EQ(menu.entries[0].command_line, "again x");
  EXPECT_EQ(menu.entries[1].command_line, "inner 2");
  EXPECT_EQ(menu.entries[1].container, "") << "a loop device of another entry";
  EXPECT_EQ(menu.entries[2].command_line, "sub 2");
  EXPECT_EQ(menu.entries[3].command_line, "1 2");
}

/// Bytes that a menu's texts hold.
std::size_t texts(const BootMenu& menu) {
  std::size_t bytes = 0;
  for (const IsoBootEntry& entry : menu.entries) {
    bytes += entry.id.size() + entry.title.size() + entry.kernel.size() + entry.command_line.size() +
             entry.container.size() + entry.problem.size();
    for (const std::string& initrd : entry.initrds) bytes += sizeof(std::string) + initrd.size();
  }
  return bytes;
}

/// A variable of 64 KiB, named 500 times in each of 40 entries, would be 1.3 GB.
TEST(GrubTest, NamingAVariableOftenIsNoAmplifier) {
  FakeFiles files;
  std::string script = "menuentry before { linux /k }\nset a=xxxxxxxxxxxxxxxx\n";
  for (int i = 0; i < 12; ++i) script += "set a=\"$a$a\"\n";
  const std::string grow = script;
  std::string uses;
  for (int i = 0; i < 500; ++i) uses += " \"$a\"";
  for (int i = 0; i < 40; ++i) script += "menuentry e" + std::to_string(i) + " { linux /k" + uses + " }\n";
  const auto start = std::chrono::steady_clock::now();
  const BootMenu menu = grub(files, script);
  EXPECT_EQ(titles(menu), std::vector<std::string>{"before"});
  // Entries that change what is set outside of them, titles of menus within menus, paths that ask for $root.
  std::string many = grow;
  for (int i = 0; i < 4000; ++i) many += "set v" + std::to_string(i) + "=$a\n";
  for (int i = 0; i < 999; ++i) many += "menuentry e { set a=1; linux /k }\n";
  EXPECT_LE(texts(grub(files, many)), kMaxMenuBytes);
  std::string deep = grow;
  for (int i = 0; i < 15; ++i) deep += "submenu \"$a\" {\n";
  for (int i = 0; i < 999; ++i) deep += "menuentry e { linux /k }\n";
  EXPECT_LE(texts(grub(files, deep + std::string(15, '}'))), kMaxMenuBytes);
  std::string root = grow + "set root=\"hd$a\"\n";
  for (int i = 0; i < 999; ++i) root += "menuentry e { linux /k; initrd /i /i /i /i /i /i /i /i }\n";
  EXPECT_LE(texts(grub(files, root)), kMaxMenuBytes);
  // Blanks alone are split away, so that they cost time and nothing else.
  std::string blanks = "set a=\"        \"\n";
  for (int i = 0; i < 13; ++i) blanks += "set a=\"$a$a\"\n";
  for (int i = 0; i < 200'000; ++i) blanks += "$a";
  EXPECT_TRUE(grub(files, blanks).entries.empty());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

/// What is skipped costs time as well: here a long `if` that is not taken, passed 10,000 times.
TEST(GrubTest, SkippedCommandsCountToo) {
  FakeFiles files;
  std::string words, skipped;
  for (int i = 0; i < 100; ++i) words += " " + std::to_string(i);
  for (int i = 0; i < 200'000; ++i) skipped += "a;";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(grub(files, "for a in" + words + "; do for b in" + words + "; do if false; then " + skipped +
                              " fi; done; done\nmenuentry after { linux /k }\n")
                  .entries.empty());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(GrubTest, CommandLinesThatNoKernelWouldBeGivenAreSaid) {
  FakeFiles files;
  const BootMenu menu = grub(files, "menuentry e { linux /k " + std::string(kMaxCommandLine, 'x') + " y }\n");
  ASSERT_EQ(menu.entries.size(), 1u);
  EXPECT_THAT(menu.entries[0].problem, HasSubstr("more than 64 KiB"));
}

TEST(SyslinuxTest, RepeatingCommonArgumentsIsNoAmplifier) {
  FakeFiles files;
  std::string script = "append " + std::string(60'000, 'x') + "\n";
  for (int i = 0; i < 1000; ++i) script += "label l" + std::to_string(i) + "\n linux k\n";
  const BootMenu menu = syslinux(files, script);
  EXPECT_GT(menu.entries.size(), 10u);
  EXPECT_LE(texts(menu), kMaxMenuBytes);
  script.clear();
  for (int i = 0; i < 60; ++i) script += "menu begin " + std::string(10'000, 'm') + "\n";
  for (int i = 0; i < 1000; ++i) script += "label l\n linux k\n";
  EXPECT_LE(texts(syslinux(files, script)), kMaxMenuBytes);
  // Each include is a reading of its own, and each label may lead to another menu.
  script = "append " + std::string(500'000, 'x') + "\n";
  for (int i = 0; i < 64; ++i) script += "include isolinux.cfg\n";
  for (int i = 0; i < 20'000; ++i) script += "label l\n config c\n";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_LE(texts(syslinux(files, script)), kMaxMenuBytes);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(SystemdBootTest, ManyLongEntriesAreNotAllKept) {
  FakeFiles files;
  for (int i = 0; i < 900; ++i) {
    files.files["/loader/entries/e" + std::to_string(i) + ".conf"] =
        "linux /k\noptions " + std::string(60'000, 'x') + "\n";
  }
  BootMenu menu;
  read_systemd_boot(files, menu);
  EXPECT_GT(menu.entries.size(), 10u);
  EXPECT_LE(texts(menu), kMaxMenuBytes);
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

/// Counts what is looked for in it.
class CountingImage final : public Iso9660 {
 public:
  explicit CountingImage(const Iso9660& image) : image_(image) {}
  mutable int lookups = 0;

  const IsoVolumeInfo& volume() const noexcept override { return image_.volume(); }
  const IsoEntry& root() const noexcept override { return image_.root(); }
  Result<IsoEntry> find(std::string_view path, IsoFollow follow, IsoCase letters) const override {
    ++lookups;
    return image_.find(path, follow, letters);
  }
  Result<IsoDirectory> open_directory(const IsoEntry& directory) const override {
    return image_.open_directory(directory);
  }
  Result<std::size_t> read(const IsoEntry& file, std::uint64_t offset, std::span<std::byte> into) const override {
    return image_.read(file, offset, into);
  }
  Result<std::span<const std::byte>> view(const IsoEntry& file) const override { return image_.view(file); }
  Result<std::size_t> read_image(std::uint64_t offset, std::span<std::byte> into) const override {
    return image_.read_image(offset, into);
  }
  Result<IsoBootCatalog> boot_catalog() const override { return image_.boot_catalog(); }
  Result<IsoExtendedAttributes> extended_attributes(const IsoEntry& file) const override {
    return image_.extended_attributes(file);
  }

 private:
  const Iso9660& image_;
};

TEST(BootEntriesTest, AMenuCannotAskForFilesWithoutEnd) {
  testing::TestImage image;
  std::string words, config;
  for (int i = 0; i < 100; ++i) words += " " + std::to_string(i);
  config = "for a in" + words + "; do for b in" + words + "; do [ -f /no$a$b ]; [ -f /same ]; done; done\n" +
           "menuentry e { linux /GRUB.CFG; initrd";
  for (int i = 0; i < 9000; ++i) config += " /GRUB.CFG";
  config += " }\n";
  const auto cfg = image.add_file(config);
  const auto grub = image.add_directory({{"GRUB.CFG;1", cfg, static_cast<std::uint32_t>(config.size())}});
  const auto root =
      image.add_directory({{"GRUB", grub, 2048, 2}, {"GRUB.CFG;1", cfg, static_cast<std::uint32_t>(config.size())}});
  image.add_primary(root, image.directory_size());
  const auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const CountingImage counting(iso);
  ASSERT_TRUE(find_boot_entries(counting));
  EXPECT_LT(counting.lookups, 5000);
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
