// Who may include whom. Within core/ the link list of a room's CMake target is the rule, except that core/app, which
// puts everything together, may include all and core/base may be included by all. Across the plugin boundary there is
// only the public door.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {
namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

// Rooms that know less than their place in the order would allow.
const std::map<std::string, std::set<std::string>> kAtMost = {
    {"base", {}},
    {"model_file", {"base"}},
    {"kv", {"base"}},
    {"net", {"base", "config", "metrics"}},
};
// Libraries that belong to some rooms only: sockets to net, JSON to what speaks it.
const std::map<std::string, std::set<std::string>> kOnlyIn = {
    {"boost/beast", {"net", "app"}},
    {"boost/asio", {"net", "lifecycle", "api", "app"}},
    {"boost/json", {"model_file", "plugin", "sim", "conformance", "lifecycle", "text", "net", "api", "app"}},
};

std::string read(const fs::path &file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool is_source(const fs::path &p) {
  static const std::set<std::string> kinds = {".c", ".h", ".cpp", ".hpp", ".ipp", ".cu", ".comp"};
  return kinds.count(p.extension().string()) != 0;
}

std::vector<fs::path> files_below(const fs::path &folder, bool (*wanted)(const fs::path &)) {
  std::vector<fs::path> files;
  if (!fs::exists(folder)) return files;
  for (const auto &entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && wanted(entry.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

struct Include {
  std::string target;
  bool quoted;
};
std::vector<Include> includes_of(const std::string &text) {
  static const std::regex line(R"((?:^|\n)[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"])");
  std::vector<Include> all;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), line); it != std::sregex_iterator(); ++it)
    all.push_back({(*it)[2], (*it)[1] == "\""});
  return all;
}

/// "core/kv/block_pool.hpp" -> "kv"; empty for what is not in core/.
std::string room_of(const std::string &include) {
  if (include.rfind("core/", 0) != 0) return {};
  const std::string rest = include.substr(5);
  return rest.substr(0, rest.find('/'));
}

std::set<std::string> links_of(const fs::path &cmake_list) {
  static const std::regex target(R"(sluice_core_([a-z_]+))");
  std::string text = read(cmake_list);
  text = std::regex_replace(text, std::regex("#[^\n]*"), "");
  text = std::regex_replace(text, std::regex("sluice_core_library"), "");
  std::set<std::string> rooms;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), target); it != std::sregex_iterator(); ++it)
    rooms.insert((*it)[1]);
  return rooms;
}

/// The rooms as core/CMakeLists.txt lists them: each may depend on those before it.
Strings order_of_rooms(const fs::path &root) {
  std::smatch list;
  const std::string text = read(root / "core/CMakeLists.txt");
  if (!std::regex_search(text, list, std::regex(R"(foreach\(room ([a-z_ ]+)\))"))) return {};
  std::istringstream words(list[1]);
  return {std::istream_iterator<std::string>(words), {}};
}

void check_room(const fs::path &root, const Strings &order, const std::string &room, Strings &wrong) {
  const auto rank = [&](const std::string &r) { return std::find(order.begin(), order.end(), r) - order.begin(); };
  std::set<std::string> links = links_of(root / "core" / room / "CMakeLists.txt");
  links.erase(room);
  for (const std::string &other : links) {
    const auto most = kAtMost.find(room);
    if (rank(other) >= rank(room) || (most != kAtMost.end() && most->second.count(other) == 0))
      wrong.push_back("core/" + room + " must not link core/" + other);
  }
  for (const fs::path &file : files_below(root / "core" / room, is_source))
    for (const Include &i : includes_of(read(file))) {
      const std::string where = fs::relative(file, root).string() + " includes " + i.target;
      const std::string other = room_of(i.target);
      const bool free = room == "app" || other == "base" || other == room;
      if (!other.empty() && !free && links.count(other) == 0)
        wrong.push_back(where + ", but core/" + room + " does not link it");
      for (const char *outside : {"backends/", "samplers/", "schedulers/", "plugins/"})
        if (i.target.rfind(outside, 0) == 0) wrong.push_back(where + ", which is a plugin's");
      for (const auto &[library, rooms] : kOnlyIn)
        if (i.target.rfind(library, 0) == 0 && rooms.count(room) == 0) wrong.push_back(where);
    }
}

void check_plugins(const fs::path &root, const std::string &folder, const std::set<std::string> &allowed,
                   Strings &wrong) {
  const auto is_cmake = [](const fs::path &p) { return p.filename() == "CMakeLists.txt"; };
  for (const fs::path &list : files_below(root / folder, is_cmake))
    for (const std::string &room : links_of(list))
      if (allowed.count(room) == 0)
        wrong.push_back(fs::relative(list, root).string() + " must not link core/" + room);
  for (const fs::path &file : files_below(root / folder, is_source))
    for (const Include &i : includes_of(read(file)))
      if (const std::string room = room_of(i.target); !room.empty() && allowed.count(room) == 0)
        wrong.push_back(fs::relative(file, root).string() + " includes " + i.target + " past the public door");
}

Strings violations(const fs::path &root) {
  Strings wrong;
  const Strings order = order_of_rooms(root);
  for (const auto &entry : fs::directory_iterator(root / "core"))
    if (entry.is_directory() && std::count(order.begin(), order.end(), entry.path().filename()) != 1)
      wrong.push_back("core/" + entry.path().filename().string() + " has no place in the order of rooms");
  for (const std::string &room : order) check_room(root, order, room, wrong);
  check_plugins(root, "backends", {"model_file", "base"}, wrong);
  for (const char *folder : {"samplers", "schedulers", "plugins/decoders", "examples"})
    check_plugins(root, folder, {}, wrong);
  for (const fs::path &file : files_below(root / "plugins/sdk/include", is_source))
    for (const Include &i : includes_of(read(file)))
      if (i.quoted || i.target.rfind("boost/", 0) == 0)
        wrong.push_back(fs::relative(file, root).string() + " includes " + i.target +
                        "; public headers need themselves and the standard library only");
  return wrong;
}

TEST(Layering, TheTreeKeepsItsRules) {
  const Strings wrong = violations(SLUICE_SOURCE_DIR);
  for (const std::string &w : wrong) ADD_FAILURE() << w;
}

TEST(Layering, SeesIncludesAsThePreprocessorDoes) {
  const auto found = includes_of("#include <a>\n  #  include \"b/c.hpp\"\n// #include <no>\nx #include <no>\n");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].target, "a");
  EXPECT_FALSE(found[0].quoted);
  EXPECT_EQ(found[1].target, "b/c.hpp");
  EXPECT_TRUE(found[1].quoted);
}

// A tree with one breach of each rule, so that the check itself is known to work.
class BrokenTree : public testing::Test {
 protected:
  BrokenTree() {
    std::string pattern = (fs::temp_directory_path() / "sluice_layering_XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    write("core/CMakeLists.txt", "foreach(room base metrics kv text engine net)\n");
    write("core/base/CMakeLists.txt", "sluice_core_library(base SOURCES a.cpp)");
    write("core/kv/CMakeLists.txt", "sluice_core_library(kv SOURCES a.cpp DEPS sluice_core_base)");
  }
  ~BrokenTree() override { fs::remove_all(root_); }
  void write(const std::string &file, const std::string &text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  std::string only_violation() {
    const Strings wrong = violations(root_);
    return wrong.size() == 1 ? wrong[0] : std::to_string(wrong.size()) + " violations";
  }
  fs::path root_;
};

TEST_F(BrokenTree, IsCleanBeforeItIsBroken) { EXPECT_TRUE(violations(root_).empty()); }
TEST_F(BrokenTree, AnIncludeWithoutALink) {
  write("core/kv/a.cpp", "#include \"core/text/x.hpp\"\n");
  EXPECT_EQ(only_violation(), "core/kv/a.cpp includes core/text/x.hpp, but core/kv does not link it");
}
TEST_F(BrokenTree, ALinkUpward) {
  write("core/metrics/CMakeLists.txt", "sluice_core_library(metrics SOURCES a.cpp DEPS sluice_core_engine)");
  EXPECT_EQ(only_violation(), "core/metrics must not link core/engine");
}
TEST_F(BrokenTree, ALinkThatTheRoomMustDoWithout) {
  write("core/net/CMakeLists.txt", "sluice_core_library(net SOURCES a.cpp DEPS sluice_core_request)");
  EXPECT_EQ(only_violation(), "core/net must not link core/request");
}
TEST_F(BrokenTree, SocketsInTheEngine) {
  write("core/engine/a.hpp", "#include <boost/asio/io_context.hpp>\n");
  EXPECT_EQ(only_violation(), "core/engine/a.hpp includes boost/asio/io_context.hpp");
}
TEST_F(BrokenTree, CoreReachingIntoAPlugin) {
  write("core/kv/a.cpp", "#include \"backends/cpu/x.hpp\"\n");
  EXPECT_EQ(only_violation(), "core/kv/a.cpp includes backends/cpu/x.hpp, which is a plugin's");
}
TEST_F(BrokenTree, ASamplerReachingIntoCore) {
  write("samplers/greedy/a.cpp", "#include \"core/base/log.hpp\"\n");
  EXPECT_EQ(only_violation(), "samplers/greedy/a.cpp includes core/base/log.hpp past the public door");
}
TEST_F(BrokenTree, ABackendMayReadModelFilesAndNoMore) {
  write("backends/cpu/a.cpp", "#include \"core/model_file/gguf.hpp\"\n#include \"core/kv/block_pool.hpp\"\n");
  EXPECT_EQ(only_violation(), "backends/cpu/a.cpp includes core/kv/block_pool.hpp past the public door");
}
TEST_F(BrokenTree, APluginLinkingCore) {
  write("schedulers/fcfs/CMakeLists.txt", "target_link_libraries(x PRIVATE sluice_core_base)");
  EXPECT_EQ(only_violation(), "schedulers/fcfs/CMakeLists.txt must not link core/base");
}
TEST_F(BrokenTree, APublicHeaderWithAPrivateInclude) {
  write("plugins/sdk/include/sluice/x.hpp", "#include \"core/base/error.hpp\"\n");
  EXPECT_NE(only_violation().find("public headers need"), std::string::npos);
}
TEST_F(BrokenTree, ARoomThatNobodyPlanned) {
  write("core/utils/x.hpp", "");
  EXPECT_EQ(only_violation(), "core/utils has no place in the order of rooms");
}

}  // namespace
