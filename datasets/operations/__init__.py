"""Operations on whole datasets: verify, statistics, selection, merging."""
