// Images made by the tools that people use, read back and compared with the files they were made from.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <vm_platform/iso_boot.hpp>
#include <vm_platform/iso_extract.hpp>

namespace vm_platform {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A scratch directory with a source tree; gone at the end.
class IsoToolsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/vmp-iso-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    make_source();
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(dir_, ignored);
  }

  void write(const std::string& path, const std::string& content) {
    fs::create_directories((dir_ / path).parent_path());
    std::ofstream(dir_ / path, std::ios::binary) << content;
  }
  void make_source() {
    write("src/readme.txt", "read me\n");
    write("src/empty", "");
    write("src/UPPER lower with spaces.txt", "x");
    write("src/sub/exact-2048.bin", std::string(2048, 'e'));
    std::string big;
    for (int i = 0; i < 300'000; ++i) big += static_cast<char>(i * 7 % 251);
    write("src/sub/big.bin", big);
    write("src/" + std::string(200, 'n'), "long name");
    write("src/d1/d2/d3/d4/d5/d6/d7/d8/d9/d10/deep.txt", "deep");
    write(
        "src/gr\xC3\xBC\xC3\x9F"
        "e.txt",
        "umlaut");
    fs::create_symlink("sub/big.bin", dir_ / "src/link");
    fs::create_symlink("/readme.txt", dir_ / "src/sub/absolute");
    fs::create_symlink(std::string(100, 'a') + "/" + std::string(110, 'b') + "/../" + std::string(120, 'c'),
                       dir_ / "src/longlink");
    fs::permissions(dir_ / "src/readme.txt", fs::perms(0640));
    fs::permissions(dir_ / "src/sub/big.bin", fs::perms(0755));
    for (int i = 0; i < 300; ++i) write("src/many/file-number-" + std::to_string(i), std::to_string(i));
  }

  /// Runs in the scratch directory.
  void run(const std::string& command) {
    const std::string all = "cd " + dir_.string() + " && (" + command + ") >log 2>&1";
    if (std::system(all.c_str()) != 0) {
      std::ifstream log(dir_ / "log");
      FAIL() << command << "\n" << std::string(std::istreambuf_iterator<char>(log), {});
    }
  }
  SimpleIso9660 open(const std::string& name, const IsoOpenOptions& options = {}) {
    auto iso = SimpleIso9660::open((dir_ / name).string(), options);
    EXPECT_TRUE(iso) << iso.error().message();
    return std::move(*iso);
  }
  static std::string content(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  /// Every path, type, size, content, link target (and with Rock Ridge mode and time) is the source's, and nothing is
  /// missing.
  void expect_same_as_source(const SimpleIso9660& iso, bool posix, const std::string& source = "src") {
    std::set<std::string> left;
    for (const auto& entry : fs::recursive_directory_iterator(dir_ / source)) {
      left.insert(entry.path().lexically_relative(dir_ / source).string());
    }
    IsoWalk walk(iso, iso.root());
    IsoEntry entry;
    for (;;) {
      auto more = walk.next(entry);
      ASSERT_TRUE(more) << more.error().message();
      if (!*more) break;
      const std::string path(walk.path());
      if (path == "boot.cat" || path == "boot.catalog") continue;
      EXPECT_EQ(left.erase(path), 1u) << path;
      struct stat status{};
      ASSERT_EQ(::lstat((dir_ / source / path).c_str(), &status), 0) << path;
      if (posix) {
        EXPECT_EQ(entry.mode, status.st_mode & 07777u) << path;
        EXPECT_EQ(entry.uid, status.st_uid) << path;
        EXPECT_EQ(entry.modified.seconds, status.st_mtim.tv_sec) << path;
      }
      if (entry.is_symlink()) {
        EXPECT_EQ(entry.symlink_target, fs::read_symlink(dir_ / source / path).string());
      }
      EXPECT_EQ(entry.is_directory(), S_ISDIR(status.st_mode)) << path;
      if (!entry.is_file()) continue;
      const std::string expected = content(dir_ / source / path);
      EXPECT_EQ(entry.size, expected.size()) << path;
      auto bytes = iso.read_all(entry);
      ASSERT_TRUE(bytes) << bytes.error().message();
      EXPECT_TRUE(std::string_view(reinterpret_cast<const char*>(bytes->data()), bytes->size()) == expected) << path;
      auto found = iso.find(path);
      ASSERT_TRUE(found) << found.error().message();
      EXPECT_EQ(found->record_offset, entry.record_offset);
    }
    for (const std::string& path : left) ADD_FAILURE() << "not in the image: " << path;
  }
  std::string verify(const SimpleIso9660& iso) {
    struct Sink final : IsoIssueSink {
      std::string text;
      void issue(const IsoIssue& issue) override {
        if (issue.severity == IsoIssue::Severity::Error) text += issue.where + ": " + issue.what + "\n";
      }
    } sink;
    auto report = iso_verify(iso, sink);
    EXPECT_TRUE(report) << report.error().message();
    return sink.text;
  }

  fs::path dir_;
};

TEST_F(IsoToolsTest, XorrisoRockRidgeJolietAndHybrid) {
  run("xorriso -as mkisofs -quiet -R -J -joliet-long -V 'TOOL TEST' -o x.iso src");
  auto iso = open("x.iso");
  EXPECT_EQ(iso.volume().volume_id, "TOOL TEST");
  EXPECT_EQ(iso.volume().names, IsoNameSpace::RockRidge);
  expect_same_as_source(iso, true);
  EXPECT_EQ(verify(iso), "");
  auto joliet = open("x.iso", {.names = IsoNameSpace::Joliet, .session = {}});
  EXPECT_TRUE(joliet.find("UPPER lower with spaces.txt"));
  EXPECT_TRUE(
      joliet.find("gr\xC3\xBC\xC3\x9F"
                  "e.txt"));
  EXPECT_TRUE(joliet.find("d1/d2/d3/d4/d5/d6/d7/d8/d9/d10/deep.txt"));
}

TEST_F(IsoToolsTest, GenisoimageRelocatesDeepDirectories) {
  run("genisoimage -quiet -R -o g.iso src");
  auto iso = open("g.iso");
  expect_same_as_source(iso, true);
  EXPECT_EQ(verify(iso), "");
  EXPECT_FALSE(iso.find("rr_moved/d8")) << "relocated directories are where they belong";
}

TEST_F(IsoToolsTest, GenisoimagePlainLevelsAndVersion2) {
  run("genisoimage -quiet -iso-level 1 -D -o l1.iso src/sub && genisoimage -quiet -iso-level 4 -D -o v2.iso src/sub");
  auto plain = open("l1.iso");
  EXPECT_EQ(plain.volume().names, IsoNameSpace::Plain);
  EXPECT_EQ(plain.find("BIG.BIN").value().size, 300'000u);
  EXPECT_EQ(verify(plain), "");
  auto version2 = open("v2.iso");
  EXPECT_EQ(version2.volume().names, IsoNameSpace::Enhanced);
  EXPECT_TRUE(version2.find("exact-2048.bin"));
  EXPECT_EQ(verify(version2), "");
}

TEST_F(IsoToolsTest, MultiExtentFileOfMoreThanFourGigabytes) {
  run("mkdir sparse && truncate -s 4400M sparse/huge && printf end >>sparse/huge && xorriso -as mkisofs -quiet "
      "-iso-level 3 -R -o m.iso sparse");
  if (HasFatalFailure()) return;
  auto iso = open("m.iso");
  const IsoEntry file = iso.find("huge").value();
  EXPECT_EQ(file.size, 4400ull * kMiB + 3);
  EXPECT_GT(file.extents().size(), 1u);
  std::array<std::byte, 8> tail{};
  EXPECT_EQ(iso.read(file, file.size - 3, tail).value(), 3u);
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(tail.data()), 3), "end");
}

TEST_F(IsoToolsTest, ZisofsIsDecompressed) {
  write("src/zeros", std::string(200'000, '\0'));
  run("mkzftree src z && genisoimage -quiet -R -z -o z1.iso z");
  auto iso = open("z1.iso");
  expect_same_as_source(iso, false);
  EXPECT_EQ(verify(iso), "");
  EXPECT_NE(iso.find("sub/big.bin").value().zisofs.block_log2, 0);
  auto stored = open("z1.iso", {.decompress = false, .session = {}});
  EXPECT_LT(stored.find("zeros").value().size, 2000u);
  run("xorriso -outdev z2.iso -zisofs level=9:version_2=on:susp_z2=on -map src / -find / -type f -exec set_filter "
      "--zisofs --");
  auto version2 = open("z2.iso");
  expect_same_as_source(version2, false);
  EXPECT_TRUE(version2.find("sub/big.bin").value().zisofs.version2);
}

TEST_F(IsoToolsTest, MultiSessionImages) {
  run("mkdir s1 s2 && echo one >s1/one && echo two >s2/two && xorriso -outdev ms.iso -map s1 / -commit -map s2 / "
      "-commit");
  auto last = open("ms.iso");
  EXPECT_TRUE(last.find("one"));
  EXPECT_TRUE(last.find("two"));
  EXPECT_EQ(last.volume().sessions.size(), 2u);
  auto first = open("ms.iso", {.session = last.volume().sessions.front().start_block});
  EXPECT_TRUE(first.find("one"));
  EXPECT_FALSE(first.find("two"));
}

TEST_F(IsoToolsTest, MultiSessionOfGenisoimage) {
  run("mkdir s1 s2 && echo one >s1/one && echo two >s2/two && genisoimage -quiet -R -o a.iso s1 && size=$(( ($(stat -c "
      "%s a.iso) / 2048 + 31) / 32 * 32 )) && "
      "truncate -s $((size * 2048)) a.iso && genisoimage -quiet -R -C 0,$size -M a.iso -o b.iso s2 && cat a.iso b.iso "
      ">both.iso");
  auto iso = open("both.iso");
  EXPECT_TRUE(iso.find("one"));
  EXPECT_TRUE(iso.find("two"));
}

TEST_F(IsoToolsTest, IsolinuxImageBoots) {
  write("src/isolinux/isolinux.cfg",
        "default linux\nlabel linux\n kernel /readme.txt\n append initrd=/sub/big.bin quiet\n");
  run("cp /usr/lib/ISOLINUX/isolinux.bin src/isolinux/ && xorriso -as mkisofs -quiet -R -b isolinux/isolinux.bin -c "
      "isolinux/boot.cat -no-emul-boot "
      "-boot-load-size 4 -boot-info-table -isohybrid-mbr /usr/lib/ISOLINUX/isohdpfx.bin -o boot.iso src");
  auto iso = open("boot.iso");
  const IsoBootCatalog catalog = iso.boot_catalog().value();
  EXPECT_TRUE(catalog.checksum_ok);
  ASSERT_EQ(catalog.images.size(), 1u);
  EXPECT_EQ(catalog.images[0].sector_count, 4);
  EXPECT_EQ(catalog.images[0].offset, iso.find("isolinux/isolinux.bin").value().extents()[0].offset);
  ASSERT_FALSE(iso.volume().partitions.empty());
  EXPECT_EQ(iso.volume().partitions[0].scheme, "mbr");
  const auto entries = find_boot_entries(iso).value();
  const IsoBootFiles files = load_boot_entry(iso, choose_boot_entry(entries, "").value()).value();
  EXPECT_EQ(files.kernel.size(), 8u);
  EXPECT_EQ(files.initramfs.size(), 300'000u);
  EXPECT_EQ(files.command_line, "quiet console=ttyS0");
}

TEST_F(IsoToolsTest, GrubRescueImage) {
  write("tree/boot/grub/grub.cfg",
        "set default=b\nmenuentry a { linux /nothing }\nmenuentry b --id b { linux /boot/kernel ro\n initrd "
        "/boot/initrd }\n");
  write("tree/boot/kernel", "k");
  write("tree/boot/initrd", "i");
  run("grub-mkrescue -d /usr/lib/grub/i386-pc -o grub.iso tree");
  auto iso = open("grub.iso");
  const auto entries = find_boot_entries(iso).value();
  EXPECT_EQ(choose_boot_entry(entries, "").value().command_line, "ro");
  EXPECT_TRUE(iso.boot_catalog());
}

TEST_F(IsoToolsTest, ExtractGivesTheSourceBack) {
  run("xorriso -as mkisofs -quiet -R -o x.iso src");
  auto iso = open("x.iso");
  for (const unsigned threads : {1u, 4u}) {
    const std::string target = (dir_ / ("out" + std::to_string(threads))).string();
    IsoExtractOptions options;
    options.threads = threads;
    const IsoExtractReport report = iso_extract(iso, target, options).value();
    EXPECT_EQ(report.failures, 0u) << report.errors[0].message();
    expect_same_as_source(iso, true, "out" + std::to_string(threads));
    run("diff -r --no-dereference src " + target);
  }
  // Resumed, everything is kept except what was damaged meanwhile.
  write("out1/sub/big.bin", "cut");
  fs::remove(dir_ / "out1/readme.txt");
  IsoExtractOptions again;
  again.existing = IsoExisting::Resume;
  const IsoExtractReport resumed = iso_extract(iso, (dir_ / "out1").string(), again).value();
  EXPECT_EQ(resumed.failures, 0u);
  EXPECT_EQ(resumed.files, 2u);
  run("diff -r --no-dereference src out1");
  // And refused without being asked to.
  const IsoExtractReport refused = iso_extract(iso, (dir_ / "out1").string(), {}).value();
  EXPECT_GT(refused.failures, 300u);
  EXPECT_THAT(refused.errors.at(0).message(), HasSubstr("is there already"));
}

TEST_F(IsoToolsTest, PatternsChooseAndLinksInTheTargetAreNotFollowed) {
  run("xorriso -as mkisofs -quiet -R -o x.iso src && mkdir outside target && ln -s ../outside target/sub");
  auto iso = open("x.iso");
  IsoExtractOptions options;
  options.patterns = {"sub", "many/*1?"};
  const IsoExtractReport report = iso_extract(iso, (dir_ / "target").string(), options).value();
  EXPECT_GE(report.failures, 1u);
  EXPECT_TRUE(fs::is_empty(dir_ / "outside"));
  EXPECT_TRUE(fs::exists(dir_ / "target/many/file-number-12"));
  EXPECT_FALSE(fs::exists(dir_ / "target/many/file-number-22"));
  EXPECT_FALSE(fs::exists(dir_ / "target/readme.txt"));
}

TEST_F(IsoToolsTest, TruncatedImagesListWhatIsThere) {
  run("xorriso -as mkisofs -quiet -R -o x.iso src && head -c 400000 x.iso >cut.iso");
  auto iso = open("cut.iso");
  EXPECT_TRUE(iso.volume().truncated());
  EXPECT_TRUE(iso.find("readme.txt"));
  EXPECT_THAT(verify(iso), HasSubstr("past the end of the image"));
  const IsoExtractReport report = iso_extract(iso, (dir_ / "out").string(), {}).value();
  EXPECT_GT(report.failures, 0u);
  EXPECT_GT(report.files, 0u);
  for (const auto& file : fs::recursive_directory_iterator(dir_ / "out")) {
    if (!file.is_regular_file() || file.is_symlink()) continue;
    EXPECT_EQ(content(file.path()), content(dir_ / "src" / file.path().lexically_relative(dir_ / "out")))
        << "half-written: " << file.path();
  }
}

TEST_F(IsoToolsTest, ManyThreadsReadAtOnce) {
  run("xorriso -as mkisofs -quiet -R -o x.iso src");
  auto iso = open("x.iso");
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      IsoWalk walk(iso, iso.root());
      IsoEntry entry;
      int files = 0;
      for (auto more = walk.next(entry); more && *more; more = walk.next(entry)) {
        if (entry.is_file() && iso.read_all(entry).has_value() && iso.view(entry).has_value()) ++files;
      }
      good += files == 308;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 4);
}

}  // namespace
}  // namespace vm_platform
