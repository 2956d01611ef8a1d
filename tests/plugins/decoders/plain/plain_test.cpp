#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/loaded_plugin.hpp"

namespace sluice::test {
namespace {

TEST(Plain, NeedsNothingAndDraftsNothing) {
  PluginHost host;
  const sluice_plugin_desc &desc = load_plugin(SLUICE_PLUGIN_DIR, "decoder", "plain", host);
  EXPECT_STREQ(desc.name, "plain");
  EXPECT_EQ(desc.kinds, SLUICE_KIND_DECODER);
  EXPECT_EQ(desc.n_fields, 0u);
  const sluice_decoder_vtbl &v = *desc.decoder;
  EXPECT_EQ(v.draft, nullptr);
  EXPECT_EQ(v.branch, nullptr);
  EXPECT_EQ(v.wish, nullptr);

  PluginStatus status;
  sluice_decoder_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target), setup.max_seqs = 8;
  sluice_decoder *decoder = nullptr;
  ASSERT_EQ(v.create(&host.api, nullptr, &setup, &decoder, status), SLUICE_OK) << status.text();
  sluice_decoder_needs needs, nothing{};
  std::memset(&needs, 0xff, sizeof needs);
  needs.struct_size = nothing.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, caps);
  ASSERT_EQ(v.needs(decoder, &needs, status), SLUICE_OK);
  EXPECT_EQ(needs.proposals, 0u);
  EXPECT_EQ(needs.max_nodes, 0u);
  EXPECT_EQ(needs.max_branches, 0u);
  EXPECT_EQ(needs.n_heads, 0u);
  EXPECT_EQ(needs.draft_model, nullptr);
  EXPECT_EQ(needs.caps, 0u);

  const int32_t prompt[] = {1, 2};
  sluice_seq_start start{};
  start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request), start.prompt = prompt, start.n_prompt = 2;
  sluice_decoder_seq *seq = nullptr, *fork = nullptr;
  ASSERT_EQ(v.seq_open(decoder, &start, &seq, status), SLUICE_OK);
  ASSERT_EQ(v.seq_fork(decoder, seq, &fork, status), SLUICE_OK);
  sluice_decoder_commit commit{};
  commit.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  EXPECT_EQ(v.commit(decoder, &commit, status), SLUICE_OK);
  v.seq_close(decoder, seq), v.seq_close(decoder, fork), v.destroy(decoder);
}

}  // namespace
}  // namespace sluice::test
