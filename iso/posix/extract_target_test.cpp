// What extraction does to modes and owners, as a user without privileges: a process of its own for each.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vm_platform/iso_extract.hpp>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

namespace fs = std::filesystem;
using namespace testing;

constexpr uid_t kNobody = 65534;

/// A directory that anybody may write into; gone at the end.
class ExtractModesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/vmp-iso-modes-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    ASSERT_EQ(::chmod(name, 0777), 0);
    target_ = dir_ / "target";
  }
  void TearDown() override {
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(dir_, fs::directory_options::skip_permission_denied))
      if (entry.is_directory()) fs::permissions(entry, fs::perms::owner_all, fs::perm_options::add, ignored);
    fs::remove_all(dir_, ignored);
  }

  /// Files `a` and `b` in a directory `d` that is read-only, as on most discs.
  SimpleIso9660 read_only_tree() {
    const auto block = image_.add_file("content");
    const auto sub = image_.add_directory(
        {{"A.;1", block, 7, 0, nm("a") + px(0100444)}, {"B.;1", block, 7, 0, nm("b") + px(0106755)}});
    const auto root = image_.add_directory({{"D", sub, 2048, 2, nm("d") + px(0040555)}}, sp() + er() + px(0040555));
    image_.add_primary(root, image_.directory_size());
    return SimpleIso9660::open_memory(image_.bytes()).value();
  }
  IsoExtractReport extract(const SimpleIso9660& iso, IsoExisting existing = IsoExisting::Refuse, bool owners = false) {
    IsoExtractOptions options;
    options.existing = existing;
    options.owners = owners;
    return iso_extract(iso, target_.string(), options).value();
  }
#ifdef __linux__
  /// A file that holds the image, with `size` zero bytes from `block` on that take no room.
  [[nodiscard]] int with_hole(std::uint32_t block, std::uint32_t size) {
    const int descriptor = ::memfd_create("image", MFD_CLOEXEC);
    EXPECT_EQ(::write(descriptor, image_.raw().data(), image_.raw().size()), static_cast<ssize_t>(image_.raw().size()));
    EXPECT_LE(image_.raw().size(), std::size_t{block} * 2048);
    EXPECT_EQ(::ftruncate(descriptor, off_t{block} * 2048 + size), 0);
    return descriptor;
  }
#endif
  [[nodiscard]] mode_t mode(const std::string& path) const {
    struct stat status{};
    return ::lstat((target_ / path).c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
  }

  /// Runs `what` as nobody (or who we are, without privileges); its failed expectations are this test's.
  template <typename What>
  static void unprivileged(What what) {
    EXPECT_EXIT(
        {
          if (::geteuid() == 0 && (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0))
            std::_Exit(2);
          what();
          std::_Exit(HasFailure() ? 1 : 0);
        },
        ::testing::ExitedWithCode(0), "");
  }

  fs::path dir_, target_;
  TestImage image_;
};

TEST_F(ExtractModesTest, ResumeAndOverwriteWriteIntoReadOnlyDirectoriesOfTheirOwn) {
  const SimpleIso9660 iso = read_only_tree();
  unprivileged([&] {
    EXPECT_EQ(extract(iso).failures, 0u);
    EXPECT_EQ(mode("d"), 0555u);
    for (const IsoExisting existing : {IsoExisting::Resume, IsoExisting::Overwrite}) {
      ASSERT_EQ(::chmod((target_ / "d").c_str(), 0755), 0);
      fs::remove(target_ / "d/a");
      ASSERT_EQ(::chmod((target_ / "d").c_str(), 0555), 0);
      const IsoExtractReport report = extract(iso, existing);
      EXPECT_EQ(report.failures, 0u) << report.errors.at(0).message();
      EXPECT_TRUE(fs::exists(target_ / "d/a"));
      EXPECT_EQ(mode("d"), 0555u);
    }
  });
}

TEST_F(ExtractModesTest, DirectoriesThatWereThereStayAsTheyAre) {
  const SimpleIso9660 iso = read_only_tree();
  fs::create_directories(target_ / "d");
  ASSERT_EQ(::chmod((target_ / "d").c_str(), 0700), 0);
  EXPECT_EQ(extract(iso).failures, 0u) << "their names are free";
  EXPECT_EQ(mode("d"), 0700u);
  EXPECT_EQ(mode("d/a"), 0444u);
  EXPECT_EQ(extract(iso, IsoExisting::Overwrite).failures, 0u);
  EXPECT_EQ(mode("d"), 0555u) << "taken over";
}

TEST_F(ExtractModesTest, WithoutTheirOwnerFilesAreNotSetId) {
  const SimpleIso9660 iso = read_only_tree();
  unprivileged([&] {
    const IsoExtractReport report = extract(iso, IsoExisting::Refuse, true);
    EXPECT_EQ(report.failures, 0u);
    EXPECT_EQ(report.files, 2u);
    EXPECT_EQ(report.without_owner, 3u) << "two files and a directory are root's";
    EXPECT_EQ(mode("d/a"), 0444u);
    EXPECT_EQ(mode("d/b"), 0755u);
  });
  if (::geteuid() != 0) return;
  fs::remove_all(target_);
  EXPECT_EQ(extract(iso, IsoExisting::Refuse, true).without_owner, 0u);
  EXPECT_EQ(mode("d/b"), 06755u);
}

TEST_F(ExtractModesTest, GoesOnWithTheThreadsThereAre) {
  const SimpleIso9660 iso = read_only_tree();
  unprivileged([&] {
    const rlimit none{0, 0};
    ASSERT_EQ(::setrlimit(RLIMIT_NPROC, &none), 0);
    IsoExtractOptions options;
    options.threads = 300;
    const IsoExtractReport report = iso_extract(iso, target_.string(), options).value();
    EXPECT_EQ(report.files, 2u);
    EXPECT_EQ(report.failures, 0u);
  });
}

#ifdef __linux__
/// Files that wait to be written hold the directories on their way open: the walk must leave some for itself.
TEST_F(ExtractModesTest, DeepTreesShareTheDescriptors) {
  constexpr std::uint32_t kSize = 60'000'000;
  std::vector<TestRecord> tops;
  for (const char* const name : {"X", "Y", "Z"}) {
    auto below = image_.add_directory({{"F.;1", 3000, kSize}});
    for (int i = 0; i < 179; ++i) below = image_.add_directory({{"D", below, 2048, 2}});
    tops.push_back({name, below, 2048, 2});
  }
  image_.add_primary(image_.add_directory(tops), image_.directory_size());
  const int descriptor = with_hole(3000, kSize);
  const SimpleIso9660 iso = SimpleIso9660::open_descriptor(descriptor).value();
  unprivileged([&] {
    const rlimit few{400, 400};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    IsoExtractOptions options;
    options.threads = 4;
    const IsoExtractReport report = iso_extract(iso, target_.string(), options).value();
    EXPECT_EQ(report.failures, 0u) << report.errors.at(0).message();
    EXPECT_EQ(report.files, 3u);
    EXPECT_EQ(report.directories, 3u * 180);
  });
  ::close(descriptor);
}

/// A stop request does not wait for a large file to be done, whichever way its bytes go.
TEST_F(ExtractModesTest, StoppedWithinALargeFile) {
  constexpr std::uint32_t kSize = 2'000'000'000;  // nearly all of it a hole behind the image's end
  const auto root = image_.add_directory({{"SMALL.;1", 0, 0}, {"Z.;1", 100, kSize}});
  image_.add_primary(root, image_.directory_size());
  const int descriptor = with_hole(100, kSize);
  const SimpleIso9660 iso = SimpleIso9660::open_descriptor(descriptor).value();
  const IsoEntry large = iso.find("Z").value();
  std::atomic<bool> stop = true;
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  EXPECT_EQ(iso.copy_to_descriptor(large, null, &stop).error().code(), ErrorCode::Interrupted);
  ::close(null);

  IsoExtractProgress progress;
  IsoExtractOptions options;
  options.progress = &progress;
  options.threads = 1;
  std::thread stopper([&] {
    const auto begun = [&] {
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator(target_, ignored))
        if (entry.path().filename().string().starts_with(".vmp-partial-") && entry.file_size(ignored) > 0) return true;
      return false;
    };
    while (!begun() && progress.files < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    progress.stop = true;
  });
  const IsoExtractReport report = iso_extract(iso, target_.string(), options).value();
  stopper.join();
  EXPECT_TRUE(report.stopped);
  EXPECT_EQ(report.failures, 0u);
  EXPECT_EQ(report.files, 1u) << "the large one was not finished";
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 1) << "the half-written file is gone";
  ::close(descriptor);
}
#endif

}  // namespace
}  // namespace vm_platform::iso
