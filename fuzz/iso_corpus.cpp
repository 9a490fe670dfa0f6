// Writes seeds for the ISO fuzz targets: a folder in DIR for each kind of input.
#include <filesystem>
#include <fstream>

#include "iso/testing/test_image.hpp"

namespace fs = std::filesystem;
using namespace vm_platform::iso::testing;

namespace {
void write(const fs::path& path, std::string_view content) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}
}  // namespace

int main(int argc, char** argv) {
  const fs::path dir = argc > 1 ? argv[1] : ".";
  {
    TestImage image;
    const auto file = image.add_file("content"), area = image.add_file(nm("rest") + px(0100644));
    const std::string packed = std::string("\x37\xE4\x53\x96\xC9\xDB\xD6\x07", 8) + le32(3) + "\x04\x0F" +
                               std::string(2, '\0') + le32(24) + le32(35) +
                               std::string("\x78\x9C\x4B\x4C\x4A\x06\x00\x02\x4D\x01\x27", 11);
    const auto z = image.add_file(packed);
    const auto sub = image.add_directory({{"F.;1", file, 7, 0, nm("f")}});
    const auto root =
        image.add_directory({{"A.;1", file, 7, 0, nm("a", 1) + ce(area, 0, 45)},
                             {"L.;1", 0, 0, 0, px(0120777) + nm("l") + sl(sl_component("", 8) + sl_component("a"))},
                             {"S", sub, 2048, 2, px(0040755) + nm("s")},
                             {"C.;1", 0, 0, 0, nm("c") + field("CL", both32(sub))},
                             {"M.;1", file, 2048, 0x80},
                             {"M.;1", file, 7},
                             {"T.;1", 0, 0, 0, nm("t") + field("TF", "\x0E" + std::string(21, '\x01'))},
                             {"D.;1", 0, 0, 0, px(0020600) + nm("d") + field("PN", both32(4) + both32(1))},
                             {"Z.;1", z, 35, 0, nm("z") + zf(3)}},
                            sp() + er() + px(0040755));
    image.add_primary(root, image.directory_size());
    const auto joliet = image.add_directory({{utf16be(u"\U0001F4BF name"), file, 7}, {utf16be(u"dir"), sub, 2048, 2}});
    image.add_joliet(joliet, image.directory_size());
    std::string catalog(2048, '\0');
    catalog.replace(0, 1, "\x01");
    catalog.replace(30, 2, "\x55\xAA");
    catalog[32] = '\x88';
    catalog.replace(64, 2, "\x91\xEF");
    catalog[66] = 1;
    catalog[96] = '\x88';
    const auto boot = image.add_file(catalog);
    image.add_boot_record(boot);
    const auto enhanced = image.add_directory({{"a version 2 name", file, 7}});
    image.add_enhanced(enhanced, image.directory_size());
    image.add_terminator();
    write(dir / "images/rich.iso", std::string_view(image.raw().data(), image.raw().size()));
    write(dir / "el_torito/catalog", catalog);
    write(dir / "zisofs/v1", le32(3) + le32(0) + std::string("\0\0\x04", 3) + packed);
    const std::vector<char> raw = image.as_raw_sectors(1);
    write(dir / "images/raw.bin", std::string_view(raw.data(), raw.size()));
  }
  write(dir / "zisofs/v2", le32(3) + le32(0) + std::string("\1\0\x06", 3) + "\xEF\x22\x55\xA1\xBC\x1B\x95\xA0" +
                               std::string("\0\x06\x01\x0F", 4) + le32(3) + le32(0) + le32(40) + le32(0) + le32(51) +
                               le32(0) + std::string("\x78\x9C\x4B\x4C\x4A\x06\x00\x02\x4D\x01\x27", 11));
  {
    std::string index;
    for (int i = 0; i < 256; ++i) index += both32(i == 3 ? 16u : i == 4 ? 0x40000001u : 0x80000000u);
    write(dir / "sparse/two_levels",
          le32(65536) + le32(0) + "\1" + std::string(2048, '\0') + index + std::string(256, 'd'));
  }
  write(dir / "system_use/all",
        std::string(1, '\0') + px(0100644) + nm("a", 1) + sl(sl_component("", 8) + sl_component("a")) +
            field("TF", "\x0E" + std::string(21, '\x01')) + field("SF", both32(0) + both32(99) + "\1") +
            ce(0, 160, 30) + sp() + nm("b") + zf(3) + field("RE", "") + field("CL", both32(1)));
  write(dir / "syslinux/isolinux.cfg",
        "default b\nui vesamenu.c32\nlabel a\n menu label ^A\n kernel vmlinuz\n append initrd=i quiet\nmenu begin "
        "x\nlabel b\n linux k\n initrd i\nmenu end\ninclude other.cfg\n");
  write(dir / "grub/grub.cfg",
        "set default=\"1>b\"\nif [ \"$a\" = b -o -f /x ]; then set x=${y}; else true; fi\nfunction f { linux /k $x; }\n"
        "for i in 1 2; do menuentry \"e $i\" --id b { search --set=root --file /x; f; initrd /i }; done\n"
        "submenu s { menuentry t { loopback loop /x.iso; linux (loop)/k } }\nsource $prefix/o.cfg\n");
  // What multiplies: empty loops in loops, a variable that doubles and is named often, arguments that all entries
  // share.
  std::string loops, doubling = "set a=xxxxxxxxxxxxxxxx\n", shared = "append " + std::string(3000, 'x') + "\n";
  for (int i = 0; i < 12; ++i) loops += "for v in 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9; do\n";
  for (int i = 0; i < 12; ++i) loops += "done\n";
  for (int i = 0; i < 12; ++i) doubling += "set a=\"$a$a\"\n";
  doubling += "for i in 0 1 2 3 4 5 6 7 8 9; do menuentry \"$a\" { linux /k \"$a\" \"$a\"; initrd /$a /$a }; done\n";
  for (int i = 0; i < 900; ++i) shared += "label l\nlinux k\n";
  write(dir / "grub/loops.cfg", loops);
  write(dir / "grub/doubling.cfg", doubling);
  write(dir / "syslinux/shared.cfg", shared);
  write(dir / "systemd_boot/loader.conf", "default a*\ntitle T\nlinux /k\ninitrd /i\noptions o\nefi /e\n");
  return 0;
}
