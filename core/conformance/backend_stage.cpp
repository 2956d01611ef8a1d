// Stage F: a backend against itself. However a prompt is cut into steps, wherever its blocks lie and whoever is beside
// it, the logits of its last row are the same.
#include <fmt/format.h>

#include <algorithm>

#include "core/conformance/backend_driver.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kBlocks = BackendDriver::kBlocks, kMaxTokens = BackendDriver::kMaxTokens;

class BackendCheck {
 public:
  BackendCheck(BackendDriver &driver, Findings &findings) : d_(driver), findings_(findings) {}

  void run() {
    check_chunks();
    check_blocks();
    check_company();
    check_copies();
    check_refusals();
  }

 private:
  void check_chunks() {
    const Logits expected = d_.whole(d_.prompt());
    for (const auto &chunks : std::vector<std::vector<uint32_t>>{{1}, {7, 13}, {d_.block_size()}, {static_cast<uint32_t>(d_.prompt().size()) - 1, 1}}) {
      BackendSequence s = d_.make(d_.prompt(), 0, 1);
      d_.expect_same(d_.feed(s, chunks, fmt::format("a prompt in chunks of {}", chunks.front())), expected, "F4 chunks equal the whole",
                  fmt::format("a prompt in chunks of {}", chunks.front()),
                  "kv_len tokens are cached; positions, masks and slots go on from there");
    }
  }

  void check_blocks() {
    const Logits expected = d_.whole(d_.prompt());
    for (const auto &[first, stride] : {std::pair<uint32_t, int32_t>{kBlocks - 1, -1}, {5, 7}, {17, 11}}) {
      BackendSequence s = d_.make(d_.prompt(), first, stride);
      d_.expect_same(d_.feed(s, {20}, "blocks in another order"), expected, "F5 any blocks will do",
                  fmt::format("blocks {}, {}, ...", s.blocks[0], s.blocks.size() > 1 ? s.blocks[1] : 0),
                  "find every cached token through block_ids; blocks are in order of position, not of number");
    }
  }

  void check_company() {
    const uint32_t half = std::min<uint32_t>(16, static_cast<uint32_t>(d_.prompt().size()) / 2);
    std::vector<std::vector<int32_t>> prompts(3);
    for (size_t i = 0; i < 3; ++i) {
      prompts[i].assign(d_.prompt().begin(), d_.prompt().begin() + half);
      std::rotate(prompts[i].begin(), prompts[i].begin() + static_cast<std::ptrdiff_t>(i), prompts[i].end());
    }
    std::vector<Logits> alone;
    for (const auto &p : prompts) alone.push_back(d_.whole(p));
    std::vector<BackendSequence> all;
    for (uint32_t i = 0; i < 3; ++i) all.push_back(d_.make(prompts[i], 15 * i, 1));
    const auto together = d_.step({{&all[0], half}, {&all[1], half}, {&all[2], half}}, "three prompts in one step");
    for (size_t i = 0; i < together.size(); ++i)
      d_.expect_same(together[i], alone[i], "F6 a batch equals its parts", fmt::format("prompt {} of three in one step", i),
                  "q_indptr separates the sequences; nothing may cross it");
    if ((d_.caps() & SLUICE_CAP_MIXED_BATCH) == 0) return;
    BackendSequence decoding = d_.make(prompts[0], 0, 1), starting = d_.make(prompts[1], 20, 1);
    if (d_.step({{&decoding, half - 1}}, "all but the last token").empty()) return;
    const auto mixed = d_.step({{&decoding, 1}, {&starting, half}}, "a decode beside a prompt");
    for (size_t i = 0; i < mixed.size(); ++i)
      d_.expect_same(mixed[i], alone[i], "F6 a batch equals its parts", i == 0 ? "a decode beside a prompt" : "a prompt beside a decode",
                  "CAP_MIXED_BATCH promises this");
  }

  void check_copies() {
    BackendSequence one = d_.make(d_.prompt(), 0, 1);
    const Logits expected = d_.whole(d_.prompt());
    const auto most = static_cast<uint32_t>(d_.prompt().size()) - 1;
    if (d_.step({{&one, most}}, "all but the last token").empty()) return;
    BackendSequence copy = one;
    copy.id = one.id + 1000;
    for (uint32_t &b : copy.blocks) b += 20;
    if (!d_.kv_ops(SLUICE_KV_COPY, one.blocks, copy.blocks, "F7 blocks can be copied")) return;
    one.tokens.back() = one.tokens.front();  // the original goes another way
    const auto other = d_.step({{&one, 1}}, "the original goes on");
    const auto rows = d_.step({{&copy, 1}}, "the copy goes on");
    if (!rows.empty()) d_.expect_same(rows[0], expected, "F7 blocks can be copied", "a copy that goes on by itself", "COPY takes the whole block, before the next submit writes");
  }

  void check_refusals() {
    findings_.doing("a step with an unknown flag that must be understood");
    if (d_.submit_with(1u << 15, d_.prompt()[0]) == SLUICE_OK)
      findings_.fail("F8 what is unknown and matters is refused", "a step with the flag 0x8000 was run", "R6: refuse unknown bits of the low half with UNSUPPORTED");
    findings_.doing("a token outside the vocabulary");
    if (d_.submit_with(0, static_cast<int32_t>(d_.model().info().vocab_size)) == SLUICE_OK)
      findings_.warn("F9 ids are checked", "a token outside the vocabulary was taken", "refuse it with INVALID_ARGUMENT; the host does not send any, but a bug might");
    if (d_.whole(d_.prompt()).empty())
      findings_.fail("F8 what is unknown and matters is refused", "after a refusal no step runs any more", "a refused step changes nothing");
  }

  BackendDriver &d_;
  Findings &findings_;
};

}  // namespace

void check_backend(const std::string &path, const std::string &model, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  BackendDriver driver(findings);
  if (!driver.load(subject->library(), subject->api(), *subject->options(), model)) return;
  BackendCheck(driver, findings).run();
  check_trees(driver, findings);
  check_swap(driver, findings);
  check_against_oracle(driver, subject->api(), model, findings);
}

}  // namespace sluice::conformance
