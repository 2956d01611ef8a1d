// Stage I: a decoder that branches ranks; what it returns must be a plan that the host can carry out.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/conformance/decoder_subject.hpp"

namespace sluice::conformance {
namespace {

using Seq = DecoderSubject::Seq;
using Tokens = DecoderSubject::Tokens;

class BranchCheck {
 public:
  explicit BranchCheck(DecoderSubject &subject) : s_(subject) {}

  void run() {
    const Tokens text{11, 12, 13, 14};
    std::vector<Seq> seqs{s_.open(text, 1).seq, s_.open(text, 2).seq};  // the second forks: one group is alone, one is wide
    const uint32_t width = std::min(s_.needs.max_branches, 8u);
    for (uint32_t i = 1; i < width; ++i) seqs.push_back(s_.fork(seqs[1]));
    const Branches first = branch(seqs, {0, 1, 1 + width});
    if (!first.done.empty()) {
      seqs.push_back(s_.open(text, 1).seq);
      const auto twin = branch({seqs.back()}, {0, 1});
      Branches alone = first;
      const size_t n = static_cast<size_t>(std::count(first.from.begin(), first.from.end(), 0u));
      alone.from.resize(n), alone.token.resize(n), alone.score.resize(n), alone.what.resize(n), alone.done.resize(1);
      if (twin != alone) s_.fail("I6 a batch equals its parts", "a group alone branches in another way", "nothing else of the batch matters");
    }
    (void)branch({}, {0});
    for (const Seq s : seqs) s_.close(s);
  }

 private:
  struct Branches {
    std::vector<uint32_t> from;
    Tokens token;
    std::vector<float> score;
    std::vector<uint8_t> what, done;
    bool operator==(const Branches &) const = default;
  };

  /// One call, judged; empty after a failure.
  Branches branch(const std::vector<Seq> &seqs, const std::vector<uint32_t> &groups) {
    const auto n = static_cast<uint32_t>(seqs.size()), n_groups = static_cast<uint32_t>(groups.size()) - 1;
    const uint32_t n_top = s_.needs.n_top, room = n * n_top + n_groups;
    Tokens ids;
    std::vector<float> logprobs;
    for (uint32_t i = 0; i < n; ++i)
      for (uint32_t k = 0; k < n_top; ++k)
        ids.push_back(static_cast<int32_t>((13 * i + 5 * k + 3) % DecoderSubject::kVocab)), logprobs.push_back(-0.3f * static_cast<float>(k + 1) - 0.01f * static_cast<float>(i));
    const std::vector<uint32_t> generated(n, 3);
    sluice_branch_in in{};
    in.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_in, generated);
    in.n_groups = n_groups, in.n_branches = n, in.n_top = n_top;
    in.group_indptr = groups.data(), in.seq = seqs.data(), in.top_ids = ids.data(), in.top_logprobs = logprobs.data();
    in.generated = generated.data();
    Branches b{std::vector<uint32_t>(room + 8), Tokens(room + 8, -77), std::vector<float>(room + 8), std::vector<uint8_t>(room + 8),
               std::vector<uint8_t>(n_groups)};
    sluice_branch_out out{};
    out.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_out, group_done);
    out.capacity = room, out.from = b.from.data(), out.token = b.token.data(), out.score = b.score.data();
    out.what = b.what.data(), out.group_done = b.done.data();
    s_.findings.doing(fmt::format("branch() of {} branches in {} groups", n, n_groups));
    sluice_status st = plugin::fresh_status();
    if (const int32_t code = s_.v.branch(s_.decoder, &in, &out, &st); code != SLUICE_OK) {
      s_.fail(n == 0 ? "I5 empty calls succeed" : "I0 ordinary calls succeed", fmt::format("branch returned {}: {}", code, st.msg), "see draft.h");
      return {};
    }
    if (const std::string wrong = wrong_with(b, out.n, groups, n, room); !wrong.empty()) {
      s_.fail("I8 branches are accounted for", wrong, "groups in order, best first, at most max_branches grow in each; see draft.h");
      return {};
    }
    b.from.resize(out.n), b.token.resize(out.n), b.score.resize(out.n), b.what.resize(out.n);
    return b;
  }

  std::string wrong_with(const Branches &b, uint32_t n, const std::vector<uint32_t> &groups, uint32_t n_branches, uint32_t room) const {
    if (n > room || b.token[room] != -77) return fmt::format("{} entries, there is room for {}", n, room);
    size_t group = 0;
    std::vector<uint32_t> grown(groups.size());
    for (uint32_t i = 0; i < n; ++i) {
      if (b.from[i] >= n_branches) return fmt::format("entry {} is from branch {}, there are {}", i, b.from[i], n_branches);
      if (b.from[i] < groups[group]) return fmt::format("entry {} goes back to an earlier group", i);
      while (b.from[i] >= groups[group + 1]) ++group;
      const bool grows = b.what[i] == SLUICE_BRANCH_GROW;
      if (!grows && b.what[i] != SLUICE_BRANCH_FINISH) return fmt::format("entry {} is {}, neither GROW nor FINISH", i, b.what[i]);
      if (b.token[i] < (grows ? 0 : -1) || b.token[i] >= static_cast<int32_t>(DecoderSubject::kVocab))
        return fmt::format("entry {} is token {}, the vocabulary has {}", i, b.token[i], DecoderSubject::kVocab);
      if (std::isnan(b.score[i])) return fmt::format("entry {} has a score that is no number", i);
      for (uint32_t k = 0; k < i; ++k)
        if (b.from[k] == b.from[i] && b.token[k] == b.token[i] && b.what[k] == b.what[i])
          return fmt::format("entries {} and {} are the same", k, i);
      if (grows && ++grown[group] > s_.needs.max_branches)
        return fmt::format("group {} grows to more than {} branches", group, s_.needs.max_branches);
    }
    for (size_t g = 0; g + 1 < groups.size(); ++g) {
      if (b.done[g] > 1) return fmt::format("group_done[{}] is {}", g, b.done[g]);
      if (b.done[g] == 0 && grown[g] == 0) return fmt::format("group {} is not done, and nothing in it grows", g);
    }
    return {};
  }

  DecoderSubject &s_;
};

}  // namespace

void check_branches(DecoderSubject &subject) { BranchCheck(subject).run(); }

}  // namespace sluice::conformance
