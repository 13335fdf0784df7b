"""What a run tells: CSV, TensorBoard, a display."""
