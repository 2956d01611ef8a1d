#include "fcfs.hpp"

using sluice::fcfs::Fcfs;
using sluice::fcfs::kFields;

SLUICE_SCHEDULER_PLUGIN(Fcfs, "fcfs", "0.1.0", kFields);
