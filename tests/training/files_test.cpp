#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "runtime/training/atomic_file.h"
#include "runtime/training/glob.h"
#include "runtime/training/mapped_file.h"
#include "runtime/training/utf8.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const TemporaryFolder folder;
  {
    AtomicFile file(folder / "a", Existing::refuse);
    file.write("never");
  }
  EXPECT_TRUE(folder.names().empty());
  AtomicFile file(folder / "a", Existing::refuse);
  std::string expected(3'000'000, 'x');  // past the buffer
  file.write("12345");
  file.write(expected);
  file.write("end");
  file.rewrite(1, std::as_bytes(std::span("ab", 2)));
  file.write("!");
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  file.commit();
  EXPECT_EQ(contents(folder / "a"), "1ab45" + expected + "end!");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a"});
}

TEST(AtomicFile, ReplacesOnlyWhenTold) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", "old");
  expect_error([&] { AtomicFile(folder / "a", Existing::refuse); }, {folder / "a", "exists already", "another path"});
  EXPECT_EQ(contents(folder / "a"), "old");
  write_file_atomically(folder / "a", "new");
  EXPECT_EQ(contents(folder / "a"), "new");
}

TEST(AtomicFile, SaysWhyItCannotBeWritten) {
  const TemporaryFolder folder;
  expect_error([&] { write_file_atomically(folder / "no/a", "x"); },
               {folder / "no/a", "No such file", "create the folder"});
  folder.write("file", "");
  expect_error([&] { write_file_atomically(folder / "file/a", "x"); },
               {"Not a directory", "folder that can be written"});
}

TEST(MappedFile, ReadsAndRefuses) {
  const TemporaryFolder folder;
  EXPECT_EQ(MappedFile(folder.write("a", "PK\x03\x04 rest")).text(), "PK\x03\x04 rest");
  EXPECT_EQ(MappedFile(folder / "a").first_bytes(), "50 4b 03 04 20 72 65 73 \"PK.. res\"");
  EXPECT_EQ(MappedFile(folder.write("empty", "")).size(), 0);
  MappedFile moved(folder / "empty");
  moved = MappedFile(folder / "a");
  EXPECT_EQ(moved.size(), 9);
  expect_error([&] { MappedFile(folder / "none"); }, {folder / "none", "No such file", "check the path"});
  expect_error([&] { MappedFile(folder / ""); }, {"Is a directory"});
}

std::vector<std::string> found(const TemporaryFolder& folder, const std::vector<std::string>& patterns) {
  std::vector<std::string> full, names;
  for (const std::string& pattern : patterns) full.push_back(folder / pattern);
  for (const std::string& path : expand_globs(full)) {
    names.push_back(std::filesystem::path(path).lexically_normal().lexically_relative(folder / "").string());
  }
  return names;
}

TEST(Glob, MatchesAsAShellDoes) {
  using Names = std::vector<std::string>;
  const TemporaryFolder folder;
  for (const char* name : {"b.txt", "a.txt", "c.md", "x/d.txt", "x/y/e.txt", "x/y/f", ".hidden/g.txt", ".h.txt"}) {
    folder.write(name, name);
  }
  std::filesystem::create_symlink(folder / "a.txt", folder / "x/link.txt");
  std::filesystem::create_directory_symlink(folder / "x", folder / "x/y/loop");
  EXPECT_EQ(found(folder, {"*.txt"}), (Names{"a.txt", "b.txt"}));
  EXPECT_EQ(found(folder, {"**/*.txt"}), (Names{"a.txt", "b.txt", "x/d.txt", "x/y/e.txt"}));
  EXPECT_EQ(found(folder, {"**"}), (Names{"a.txt", "b.txt", "c.md", "x/d.txt", "x/y/e.txt", "x/y/f"}));
  EXPECT_EQ(found(folder, {"x/**/e.txt"}), (Names{"x/y/e.txt"}));
  EXPECT_EQ(found(folder, {"x/**/d.txt"}), (Names{"x/d.txt"})) << "no folder at all is a number of folders";
  EXPECT_EQ(found(folder, {"?.txt", "c.md", "[ab].txt", "./a.txt"}), (Names{"a.txt", "b.txt", "c.md"})) << "each once";
  EXPECT_EQ(found(folder, {".h*", "x/y/loop/d.txt"}), (Names{".h.txt", "x/y/loop/d.txt"}));
}

TEST(Glob, NamesEveryPatternWithoutFiles) {
  const TemporaryFolder folder;
  folder.write("a/b.txt", "");
  const std::vector<std::string> globs = {folder / "*.cpp", folder / "a/*", folder / "gone.txt", folder / "a"};
  expect_error([&] { expand_globs(globs); },
               {globs[0] + "' matches no file", globs[2], globs[3] + "' is a folder", "a/**"});
  try {
    expand_globs(globs);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.problems().size(), 3u);
  }
  expect_error([&] { expand_globs({}); }, {"no text files are named"});
}

std::string valid_utf8(std::string_view text, std::int64_t expected_replaced) {
  std::string valid;
  EXPECT_EQ(append_valid_utf8(text, valid), expected_replaced);
  return valid;
}

TEST(Utf8, ReplacesMaximalSubparts) {
  EXPECT_EQ(valid_utf8("", 0), "");
  EXPECT_EQ(valid_utf8("a\u00e9\u20ac\U0001F600\n", 0), "a\u00e9\u20ac\U0001F600\n");
  // The example of table 3-8 of the Unicode Standard.
  EXPECT_EQ(valid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", 6),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(valid_utf8("\xC0\xAF", 2), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(valid_utf8("\xED\xA0\x80", 3), "\uFFFD\uFFFD\uFFFD") << "surrogate";
  EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80", 4), "\uFFFD\uFFFD\uFFFD\uFFFD") << "beyond U+10FFFF";
  EXPECT_EQ(valid_utf8("\xE2\x82", 1), "\uFFFD") << "cut short";
}

TEST(Utf8, MakesAnyBytesValidAndKeepsWhatIs) {
  Random random;
  for (int round = 0; round < 200; ++round) {
    std::string bytes;
    for (std::int64_t i = random.below(50); i > 0; --i) bytes += static_cast<char>(random.below(256));
    std::string once, twice;
    append_valid_utf8(bytes, once);
    EXPECT_EQ(append_valid_utf8(once, twice), 0);
    EXPECT_EQ(once, twice);
  }
}

TEST(Utf8, CutsBetweenCharacters) {
  const std::string text = "a\u20acb";  // bytes 0 | 1 2 3 | 4
  const std::size_t expected[] = {0, 1, 1, 1, 4, 5, 5};
  for (std::size_t limit = 0; limit < 7; ++limit) EXPECT_EQ(character_boundary(text, limit), expected[limit]);
  EXPECT_EQ(character_boundary("\x80\x80\x80\x80\x80\x80", 5), 5u) << "no UTF-8 at all";
}

}  // namespace
}  // namespace annulus
