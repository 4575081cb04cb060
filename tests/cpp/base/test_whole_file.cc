#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/input_file.h"
#include "base/whole_file.h"

#ifndef _WIN32
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#endif

using namespace gemtp;
namespace fs = std::filesystem;

namespace {

// An empty folder that disappears with it.
struct Folder {
  fs::path path = fs::temp_directory_path() / "gemtp_whole_file_test";
  Folder() {
    fs::remove_all(path);
    fs::create_directory(path);
  }
  ~Folder() { fs::remove_all(path); }
  std::string of(const std::string& name) const { return (path / name).string(); }
  size_t count() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const std::string& path, const std::string& text) {
  WholeFile file(path);
  file.write(text.data(), text.size());
  file.complete();
}

void refused(const std::string& path, const std::string& words) {
  CAPTURE(path);
  try {
    put(path, "new");
    FAIL("written");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kFile);
    CHECK(std::string(e.what()).find(words) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("a file appears when it is complete, and an old one stays until then") {
  const Folder folder;
  const std::string path = folder.of("file");
  put(path, "old");
  {
    WholeFile file(path);
    file.write("new", 3);
    CHECK(content(path) == "old");
  }
  CHECK(content(path) == "old");
  CHECK(folder.count() == 1);
  put(path, "new");
  CHECK(content(path) == "new");
  CHECK(folder.count() == 1);
}

TEST_CASE("no other file is touched on the way") {
  const Folder folder;
  const std::string path = folder.of("file");
  put(path + ".part", "somebody's");
  put(path, "new");
  CHECK(content(path + ".part") == "somebody's");
  CHECK(folder.count() == 2);
}

TEST_CASE("what is written at once by several is the file of one of them") {
  const Folder folder;
  const std::string path = folder.of("file");
  put(path, std::string(100000, 'x'));
  std::vector<std::thread> writers;
  for (const char letter : {'a', 'b', 'c'})
    writers.emplace_back([&path, letter] {
      for (int i = 0; i < 20; ++i) put(path, std::string(100000, letter));
    });
  for (int i = 0; i < 60; ++i) {
    const std::string found = content(path);
    CHECK(found == std::string(100000, found.empty() ? '?' : found[0]));
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(folder.count() == 1);
}

TEST_CASE("no file is written over a folder, into none, or under no name") {
  const Folder folder;
  refused(folder.path.string(), "is not a file but a folder; name the file inside it");
  refused(folder.of("no/file"), "cannot be written: ");
  refused(folder.of(std::string(300, 'n')), "cannot be written: ");
  refused(std::string("a\0b", 3), "contains a zero byte");
  refused("", "is empty");
  CHECK(folder.count() == 0);
  put(folder.of(std::string(255, 'n')), "the longest name");
}

#ifndef _WIN32

TEST_CASE("a file is its owner's alone, also where another was before") {
  const Folder folder;
  const std::string path = folder.of("file");
  std::ofstream(path) << "old";
  fs::permissions(path, fs::perms(0644));
  put(path, "new");
  CHECK(fs::status(path).permissions() == fs::perms(0600));
}

TEST_CASE("links are followed, those that lead nowhere yet too") {
  const Folder folder;
  const std::string inner = folder.of("inner");
  fs::create_directory(inner);
  for (const char* target : {"inner/there", "inner/new"}) {
    if (std::string(target) == "inner/there") std::ofstream(inner + "/there") << "old";
    fs::create_symlink(target, folder.of("second"));
    fs::create_symlink(folder.of("second"), folder.of("link"));
    put(folder.of("link"), "new");
    CHECK(fs::is_symlink(fs::symlink_status(folder.of("link"))));
    CHECK(fs::is_symlink(fs::symlink_status(folder.of("second"))));
    CHECK(content(folder.of(target)) == "new");
    fs::remove(folder.of("link"));
    fs::remove(folder.of("second"));
  }
  fs::create_symlink("loop", folder.of("loop"));
  refused(folder.of("loop"), "is a link that leads nowhere");
}

TEST_CASE("pipes and devices are refused, to be read and to be written") {
  const Folder folder;
  const std::string pipe = folder.of("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  fs::create_symlink("/dev/null", folder.of("link"));
  for (const std::string& path : {pipe, std::string("/dev/null"), folder.of("link")}) {
    refused(path, "is not a file but a pipe, a socket or a device");
    CHECK_THROWS_AS(InputFile::open(path), Error);
  }
  CHECK_THROWS_AS(InputFile::open(folder.path.string()), Error);
  CHECK(folder.count() == 2);
}

TEST_CASE("a disk that fills up leaves what was there") {
  const Folder folder;
  const std::string path = folder.of("file");
  put(path, "old");
  rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  try {
    put(path, std::string(200000, 'x'));
    FAIL("written");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("cannot be written: File too large") != std::string::npos);
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(content(path) == "old");
  CHECK(folder.count() == 1);
}

#endif
