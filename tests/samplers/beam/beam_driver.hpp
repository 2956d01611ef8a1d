// Drives the beam decoder through its table, in the place of a host: shows rows, forks, prunes, keeps answers.
#pragma once
#include <gtest/gtest.h>

#include <map>

#include "tests/samplers/beam/reference.hpp"
#include "tests/support/loaded_plugin.hpp"

namespace sluice::test {

class BeamDriver {
 public:
  BeamDriver(uint32_t vocab, const PluginConfig::Values &options)
      : vocab_(vocab), desc_(load_plugin(SLUICE_PLUGIN_DIR, "decoder", "beam", host_)) {
    const PluginConfig config(desc_, options);
    sluice_model_info info{};
    info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch), info.vocab_size = vocab;
    sluice_decoder_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target), setup.max_seqs = 8, setup.target = &info;
    if (vtbl().create(&host_.api, config.handle(), &setup, &decoder_, status) != SLUICE_OK)
      throw std::invalid_argument(status.text());
    needs_.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, caps);
    vtbl().needs(decoder_, &needs_, status);
  }
  ~BeamDriver() {
    if (decoder_ != nullptr) vtbl().destroy(decoder_);
  }
  BeamDriver(const BeamDriver &) = delete;
  BeamDriver &operator=(const BeamDriver &) = delete;

  const sluice_decoder_needs &needs() const { return needs_; }
  const sluice_decoder_vtbl &vtbl() const { return *desc_.decoder; }
  sluice_decoder *decoder() { return decoder_; }

  static PluginConfig::Values request(const SearchCase &c) {
    return {{"use_beam_search", "true"},
            {"num_beams", std::to_string(c.beams)},
            {"length_penalty", std::to_string(c.length_penalty)},
            {"early_stopping", c.early_stopping}};
  }
  int32_t validate(const PluginConfig::Values &values) {
    const PluginConfig config(desc_, values, false);
    return vtbl().validate(decoder_, config.handle(), status);
  }
  sluice_decoder_seq *open(const SearchCase &c, const PluginConfig::Values &values) {
    const PluginConfig config(desc_, values, false);
    const int32_t prompt = 0;
    sluice_seq_start start{};
    start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
    start.prompt = &prompt, start.n_prompt = 1, start.max_new = c.max_new, start.n_answers = c.answers;
    start.stop_tokens = c.stops.data(), start.n_stop = static_cast<uint32_t>(c.stops.size());
    start.request = config.handle();
    sluice_decoder_seq *seq = nullptr;
    if (vtbl().seq_open(decoder_, &start, &seq, status) != SLUICE_OK) throw std::invalid_argument(status.text());
    return seq;
  }

  /// Searches for the answers of several requests, all in each call while they last.
  std::vector<std::vector<Found>> search(const std::vector<std::pair<Model, SearchCase>> &requests) {
    std::vector<Group> groups;
    for (const auto &[model, c] : requests) groups.push_back({model, c, {{open(c, request(c)), {}}}, {}, false});
    while (std::any_of(groups.begin(), groups.end(), [](const Group &g) { return !g.done; })) step(groups);
    std::vector<std::vector<Found>> out;
    for (auto &group : groups) {
      std::stable_sort(group.finished.begin(), group.finished.end(),
                       [](const Found &a, const Found &b) { return a.score > b.score; });
      group.finished.resize(std::min<size_t>(group.finished.size(), group.search.answers));
      out.push_back(group.finished);
    }
    return out;
  }
  std::vector<Found> search(const Model &model, const SearchCase &c) { return search({{model, c}})[0]; }

  uint32_t widest = 0;  ///< branches that one request had
  PluginStatus status;

 private:
  struct Beam {
    sluice_decoder_seq *seq;
    std::vector<int32_t> tokens;
  };
  struct Group {
    Model model;
    SearchCase search;
    std::vector<Beam> beams;
    std::vector<Found> finished;
    bool done;
  };

  void step(std::vector<Group> &groups) {
    std::vector<Group *> open;
    std::vector<uint32_t> indptr = {0}, generated;
    std::vector<sluice_decoder_seq *> seqs;
    std::vector<int32_t> ids;
    std::vector<float> logprobs;
    for (auto &group : groups) {
      if (group.done) continue;
      open.push_back(&group);
      for (const auto &beam : group.beams) {
        const auto row = group.model(beam.tokens);
        const auto best = top_k(row, needs_.n_top);
        for (uint32_t i = 0; i < needs_.n_top; ++i) {
          ids.push_back(i < best.size() ? static_cast<int32_t>(best[i]) : -1);
          logprobs.push_back(i < best.size() ? static_cast<float>(row[best[i]]) : -INFINITY);
        }
        seqs.push_back(beam.seq), generated.push_back(static_cast<uint32_t>(beam.tokens.size()));
      }
      widest = std::max(widest, static_cast<uint32_t>(group.beams.size()));
      indptr.push_back(static_cast<uint32_t>(seqs.size()));
    }
    sluice_branch_in in{};
    in.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_in, generated);
    in.n_groups = static_cast<uint32_t>(open.size()), in.n_branches = indptr.back(), in.n_top = needs_.n_top;
    in.group_indptr = indptr.data(), in.seq = seqs.data(), in.top_ids = ids.data();
    in.top_logprobs = logprobs.data(), in.generated = generated.data();
    const size_t room = seqs.size() * (size_t{needs_.n_top} + 1);
    std::vector<uint32_t> from(room);
    std::vector<int32_t> token(room);
    std::vector<float> score(room);
    std::vector<uint8_t> what(room), done(open.size());
    sluice_branch_out out{};
    out.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_out, group_done);
    out.capacity = static_cast<uint32_t>(room), out.from = from.data(), out.token = token.data();
    out.score = score.data(), out.what = what.data(), out.group_done = done.data();
    if (vtbl().branch(decoder_, &in, &out, status) != SLUICE_OK) throw std::runtime_error(status.text());
    uint32_t at = 0;
    for (uint32_t g = 0; g < open.size(); ++g) {
      const uint32_t end = static_cast<uint32_t>(std::find_if(from.begin() + at, from.begin() + out.n,
                                                              [&](uint32_t f) { return f >= indptr[g + 1]; }) -
                                                 from.begin());
      follow(*open[g], indptr[g], {at, end}, from, token, score, what, done[g] != 0);
      at = end;
    }
  }

  void follow(Group &group, uint32_t first, std::pair<uint32_t, uint32_t> entries, const std::vector<uint32_t> &from,
              const std::vector<int32_t> &token, const std::vector<float> &score, const std::vector<uint8_t> &what,
              bool done) {
    std::vector<Beam> next;
    for (uint32_t i = entries.first; i < entries.second; ++i) {
      const Beam &beam = group.beams[from[i] - first];
      auto tokens = beam.tokens;
      tokens.push_back(token[i]);
      if (what[i] == SLUICE_BRANCH_FINISH) {
        group.finished.push_back({tokens, score[i]});
      } else {
        sluice_decoder_seq *fork = nullptr;
        if (vtbl().seq_fork(decoder_, beam.seq, &fork, status) != SLUICE_OK) throw std::runtime_error(status.text());
        next.push_back({fork, tokens});
      }
    }
    for (const auto &beam : group.beams) vtbl().seq_close(decoder_, beam.seq);
    group.beams = std::move(next);
    tell(group.beams);
    group.done = done;
    if (!done && group.beams.empty()) throw std::runtime_error("no beam is left and the group is not done");
    if (!done) return;
    for (const auto &beam : group.beams) vtbl().seq_close(decoder_, beam.seq);
  }

  void tell(const std::vector<Beam> &beams) {
    std::vector<sluice_decoder_seq *> seqs;
    std::vector<uint32_t> indptr = {0}, none(beams.size(), 0);
    std::vector<int32_t> tokens;
    for (const auto &beam : beams) {
      seqs.push_back(beam.seq), tokens.push_back(beam.tokens.back());
      indptr.push_back(static_cast<uint32_t>(tokens.size()));
    }
    sluice_decoder_commit told{};
    told.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
    told.n_seqs = static_cast<uint32_t>(seqs.size()), told.seq = seqs.data(), told.tok_indptr = indptr.data();
    told.tok = tokens.data(), told.n_drafted = told.n_accepted = none.data();
    if (vtbl().commit(decoder_, &told, status) != SLUICE_OK) throw std::runtime_error(status.text());
  }

  PluginHost host_;
  uint32_t vocab_;
  const sluice_plugin_desc &desc_;
  sluice_decoder *decoder_ = nullptr;
  sluice_decoder_needs needs_{};
};

}  // namespace sluice::test
