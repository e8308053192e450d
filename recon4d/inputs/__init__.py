"""What is fitted: images, mattes, cameras, times, the first guess."""
